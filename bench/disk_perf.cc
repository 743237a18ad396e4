// One row of bench/disk_ablation.py: a stream with experts on disk, which decodes a few tokens whenever it is told to.
#include <gflags/gflags.h>
#include <unistd.h>

#include <iostream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "bench/benchmark_flags.h"
#include "bench/disk_decode.h"
#include "bench/planted_routes.h"
#include "comm/communicator_factory.h"
#include "kernels/weight_format.h"
#include "machine/disk_read_rate.h"
#include "residency/cache_replay.h"
#include "residency/expert_record.h"

DEFINE_string(model, "", "checkpoint directory (required)");
DEFINE_string(routes, "", "audit file with the routes of generated tokens, recorded with --audit_rate 1 (required)");
DEFINE_string(experts, "bf16", "format of the experts");
DEFINE_string(disk, "", "directory where the experts rest (default: in memory)");
DEFINE_int64(cache_experts, 16, "experts of the disk that memory has room for");
DEFINE_string(eviction, "edge", "lru, lfu, edge, or belady, which knows all routes");
DEFINE_string(foresight, "off", "off, gate, table; or oracle and wrong, which know all routes");
DEFINE_bool(always, false, "true: foresight never turns itself off");
DEFINE_int64(context, 16, "tokens before the first that decodes");
DEFINE_int64(prompt, 0, "tokens of the prompt that 'prefill' runs; 0: none");
DEFINE_int64(tokens, 80, "tokens that can decode, with routes of their own");
DEFINE_int32(threads, 2, "threads of the kernels");

namespace skipper {
namespace {

using nlohmann::json;

constexpr std::chrono::minutes kDeadline{10};
constexpr size_t kRateBytes = size_t{256} << 20;
constexpr EvictionRule kRules[] = {EvictionRule::kLeastRecent, EvictionRule::kLeastFrequent, EvictionRule::kLayerDistance};

constexpr char kIntroduction[] =
    "Decodes one stream with all experts in memory or on disk. The experts of each token are those of recorded routes, laid\n"
    "over the model's layers and experts, not those of its router. Prints a line of JSON when it is ready; then reads lines\n"
    "from standard input and answers each with a line: 'decode N', 'prefill', 'disk_rate'. Run by bench/disk_ablation.py.\n\n"
    "  echo decode 8 | disk_perf --model bench-model --routes routes.jsonl --experts int4a-g32 --disk /var/tmp\n\n";

void check_flags() {
  if (FLAGS_model.empty()) throw UsageError("flag --model is missing; give the checkpoint directory");
  if (FLAGS_routes.empty()) throw UsageError("flag --routes is missing; give an audit file of generated tokens");
  const std::pair<const char*, int64_t> counts[] = {{"cache_experts", FLAGS_cache_experts},
                                                    {"context", FLAGS_context},
                                                    {"tokens", FLAGS_tokens},
                                                    {"threads", FLAGS_threads}};
  for (const auto& [name, value] : counts) {
    if (value < 1) throw UsageError(std::string("flag --") + name + ": " + std::to_string(value) + " is less than 1");
  }
}

WeightFormat read_format() {
  try {
    return parse_weight_format(FLAGS_experts, "flag --experts");
  } catch (const InvalidRequest& error) {
    throw UsageError(error.what());
  }
}

size_t bytes_of_expert(const ModelConfig& model, const WeightFormat& format) {
  return record_bytes(format, {.hidden_size = model.hidden_size, .intermediate_size = model.moe.intermediate_size});
}

DiskDecodeConfig read_flags(const ModelConfig& model) {
  DiskDecodeConfig config{.model = FLAGS_model,
                          .format = read_format(),
                          .disk = std::nullopt,
                          .context = FLAGS_context,
                          .prompt = FLAGS_prompt};
  if (FLAGS_eviction == "belady") config.eviction = KnownEviction::kBelady;
  if (FLAGS_foresight == "oracle") config.foresight = KnownForesight::kOracle;
  if (FLAGS_foresight == "wrong") config.foresight = KnownForesight::kWrong;
  if (FLAGS_disk.empty()) return config;
  config.disk = DiskConfig{.directory = FLAGS_disk,
                           .cache_bytes = static_cast<size_t>(FLAGS_cache_experts) * bytes_of_expert(model, config.format)};
  ResidencyConfig& rules = config.disk->rules;
  rules.foresight = ForesightRule::kNone;
  if (config.eviction == KnownEviction::kNone) rules.eviction = parse_eviction_rule(FLAGS_eviction, "flag --eviction");
  if (config.foresight == KnownForesight::kNone) rules.foresight = parse_foresight_rule(FLAGS_foresight, "flag --foresight");
  if (FLAGS_always) config.disk->parts.foresight = ForesightUse::kAlways;
  return config;
}

json json_of(const DiskReading& disk) {
  const CacheCounters& cache = disk.cache;
  return {{"hits", cache.num_hits},       {"late", cache.num_late},     {"misses", cache.num_misses},
          {"foreseen", cache.num_foreseen}, {"used", cache.num_used},   {"wasted", cache.num_wasted},
          {"bytes", cache.num_bytes},     {"busy", cache.busy_seconds}, {"exposed", cache.exposed_seconds},
          {"foresight_on", disk.foresight.is_on}, {"turned_off", disk.foresight.num_times_off}};
}

json json_of(const DecodeRun& run) {
  return {{"tokens", run.tokens}, {"seconds", run.seconds}, {"disk", json_of(run.disk)}};
}

// What a cache of this size makes of the routes, by itself and at best.
json replays_of(const RouteTrace& routes) {
  const int num_frames = static_cast<int>(FLAGS_cache_experts);
  json rates = {{"belady", replay_optimum(routes, num_frames).hit_rate()}};
  for (const EvictionRule rule : kRules) rates[std::string(name_of(rule))] = replay_rule(routes, num_frames, rule).hit_rate();
  return rates;
}

json describe(const RouteTrace& routes, const ModelConfig& model, const WeightFormat& format) {
  const RouteLaw law = law_of(routes);
  return {{"ready", true},
          {"expert_bytes", bytes_of_expert(model, format)},
          {"experts", routes.counts.total()},
          {"top_k", law.top_k},
          {"skew", law.skew},
          {"repeat", law.repeat},
          {"follow", law.follow},
          {"table_recall", replay_transitions(routes).recall()},
          {"hit_rate", replays_of(routes)}};
}

json answer(const std::string& command, DiskDecode& stream) {
  if (command == "prefill" && FLAGS_prompt > 0) return json_of(stream.prefill());
  if (command.rfind("decode ", 0) == 0) return json_of(stream.decode(parse_sizes("decode", command.substr(7)).at(0)));
  if (command == "disk_rate" && !FLAGS_disk.empty()) {
    DiskReadRate rate(FLAGS_disk, kRateBytes);
    return {{"bytes_per_second", static_cast<double>(rate.num_bytes()) / rate.measure_seconds()}};
  }
  throw UsageError("'" + command + "' is no command here; see --help");
}

void run() {
  check_flags();
  const ModelConfig model = load_model_config(FLAGS_model);
  const DiskDecodeConfig config = read_flags(model);
  const RouteTrace routes =
      plant_routes(recorded_answers(FLAGS_routes, FLAGS_tokens),
                   {.num_layers = model.num_moe_layers(), .num_experts = static_cast<int>(model.moe.num_experts)}, FLAGS_tokens);
  ProcessGroup group = join_process_group();
  open_communicators({.deadline = kDeadline}, group);
  ThreadPool workers(FLAGS_threads);
  Stream stream(workers);
  const ClusterTopology topology = ClusterTopology::discover(*group.startup, group.host_name, stream);
  DiskDecode decode(config, routes, *group.data, topology, workers);
  json facts = describe(routes, model, config.format);
  facts["disk"] = json_of(decode.reading());
  std::cout << facts << std::endl;
  for (std::string command; std::getline(std::cin, command);) std::cout << answer(command, decode) << std::endl;
}

}  // namespace
}  // namespace skipper

int main(int argc, char** argv) {
  return skipper::benchmark_main({"disk_perf", skipper::kIntroduction, __FILE__, skipper::run}, argc, argv);
}
