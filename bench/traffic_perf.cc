// Prefill time of several ranks, and the bytes between their hosts, at levels of skipping: what a slow network gains.
#include <gflags/gflags.h>

#include <iomanip>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/error.h"
#include "bench/benchmark_flags.h"
#include "bench/benchmark_report.h"
#include "bench/ranked_benchmark.h"
#include "bench/traffic_benchmark.h"
#include "comm/communicator_factory.h"
#include "launcher/startup_agreement.h"

DEFINE_string(model, "", "checkpoint directory (required)");
DEFINE_string(json, "", "file for the figures");
DEFINE_string(payload_dtype, "bf16", "rows to the experts: bf16, f32, int8 or fp8");
DEFINE_int32(threads, 0, "threads of each rank; 0 shares the cores of the machine among its ranks");
DEFINE_int64(prompt, 256, "tokens of each rank's prompt");
DEFINE_string(pairs, "50,75", "per cent of the pairs to skip, each 1 to 99, by the pair rule");
DEFINE_string(destinations, "25,52", "per cent of the rows to other ranks to skip, each 1 to 99, by the destination rule");
DEFINE_int64(repeat, 3, "timed runs of each case, all cases in turn");

namespace skipper {
namespace {

constexpr int kMaxThreads = 1024;
constexpr int64_t kMaxPercent = 99;
constexpr std::chrono::minutes kDeadline{10};

constexpr char kIntroduction[] =
    "Measures a prefill of one prompt on every rank, without skipping and with given shares of the pairs, or of the rows to\n"
    "other ranks, skipped. Logits are hashed, so that runs elsewhere can be held against them bit by bit.\n\n"
    "  mpirun -n 4 traffic_perf --model bench-model --pairs 50,75,88 --destinations 25,52 --json figures.json\n\n";

void append_cases(SkippedUnit unit, const std::string& flag, const std::string& text, std::vector<TrafficCase>& cases) {
  for (const int64_t percent : parse_sizes(flag, text)) {
    if (percent > kMaxPercent) throw UsageError("flag --" + flag + ": " + std::to_string(percent) + " is not from 1 to 99");
    cases.push_back({unit, static_cast<double>(percent) / 100.0});
  }
}

PayloadFormat read_payload_format() {
  try {
    return parse_payload_format(FLAGS_payload_dtype, "flag --payload_dtype");
  } catch (const InvalidFile& error) {
    throw UsageError(error.what());
  }
}

TrafficBenchmarkConfig read_flags() {
  if (FLAGS_model.empty()) throw UsageError("flag --model is missing; give the checkpoint directory");
  if (FLAGS_threads < 0 || FLAGS_threads > kMaxThreads) {
    throw UsageError("flag --threads: " + std::to_string(FLAGS_threads) + " is not from 0 to " + std::to_string(kMaxThreads));
  }
  if (FLAGS_prompt < 1) throw UsageError("flag --prompt: " + std::to_string(FLAGS_prompt) + " is less than 1");
  if (FLAGS_repeat < 1) throw UsageError("flag --repeat: " + std::to_string(FLAGS_repeat) + " is less than 1");
  TrafficBenchmarkConfig config{.model = FLAGS_model, .formats = {}, .prompt_tokens = FLAGS_prompt, .cases = {}};
  config.formats.payload_format = read_payload_format();
  append_cases(SkippedUnit::kPair, "pairs", FLAGS_pairs, config.cases);
  append_cases(SkippedUnit::kDestination, "destinations", FLAGS_destinations, config.cases);
  return config;
}

std::vector<std::vector<TrafficRun>> measure(TrafficBenchmark& benchmark) {
  std::vector<std::vector<TrafficRun>> runs(benchmark.cases().size());
  for (int64_t round = 0; round < FLAGS_repeat; ++round) {
    for (size_t i = 0; i < runs.size(); ++i) {
      runs[i].push_back(benchmark.run(i));
      if (runs[i].back().logits_hash == runs[i].front().logits_hash) continue;
      throw Error(benchmark.cases()[i].name() + ": two runs gave different logits; no time of them means anything");
    }
  }
  return runs;
}

std::string hex_of(uint64_t hash) {
  std::ostringstream text;
  text << std::hex << std::setw(16) << std::setfill('0') << hash;
  return text.str();
}

// {"ranks", "hosts", "prompt", "payload_dtype", "cases": [{"name", "skipped", "network_bytes", "busiest_host_bytes",
//  "seconds": [..], "logits"}]}
nlohmann::json to_json(const TrafficBenchmark& benchmark, const std::vector<std::vector<TrafficRun>>& runs,
                       const ClusterTopology& topology) {
  nlohmann::json cases = nlohmann::json::array();
  for (size_t i = 0; i < runs.size(); ++i) {
    const TrafficRun& first = runs[i].front();
    nlohmann::json seconds = nlohmann::json::array();
    for (const TrafficRun& run : runs[i]) seconds.push_back(run.seconds);
    cases.push_back({{"name", benchmark.cases()[i].name()},
                     {"skipped", first.skipped},
                     {"network_bytes", first.network_bytes},
                     {"busiest_host_bytes", first.busiest_host_bytes},
                     {"seconds", seconds},
                     {"logits", hex_of(first.logits_hash)}});
  }
  return {{"ranks", topology.num_ranks()}, {"hosts", topology.num_nodes()}, {"prompt", FLAGS_prompt},
          {"payload_dtype", FLAGS_payload_dtype}, {"cases", cases}};
}

std::string to_table(const nlohmann::json& report) {
  std::ostringstream text;
  text << "case                pairs skipped   network bytes   seconds (best)   logits\n" << std::fixed;
  for (const nlohmann::json& row : report.at("cases")) {
    const std::vector<double> seconds = row.at("seconds");
    text << std::left << std::setw(20) << row.at("name").get<std::string>() << std::right << std::setprecision(1)
         << std::setw(11) << 100.0 * row.at("skipped").get<double>() << " %" << std::setprecision(0) << std::setw(16)
         << row.at("network_bytes").get<double>() << std::setprecision(3) << std::setw(17) << *std::ranges::min_element(seconds)
         << "   " << row.at("logits").get<std::string>() << "\n";
  }
  return text.str();
}

void run() {
  const TrafficBenchmarkConfig config = read_flags();
  ProcessGroup group = join_process_group();
  open_communicators({.deadline = kDeadline}, group);
  ThreadPool workers(FLAGS_threads > 0 ? FLAGS_threads : threads_of_rank(group.node_size));
  Stream stream(workers);
  const ClusterTopology topology = ClusterTopology::discover(*group.startup, group.host_name, stream);
  std::unique_ptr<TrafficBenchmark> benchmark;
  run_together(*group.startup,
               [&] { benchmark = std::make_unique<TrafficBenchmark>(config, *group.data, topology, workers); });
  benchmark->find_thresholds();
  const auto runs = measure(*benchmark);
  if (group.data->rank() != 0) return;
  const nlohmann::json report = to_json(*benchmark, runs, topology);
  publish(to_table(report), report, FLAGS_json);
}

}  // namespace
}  // namespace skipper

int main(int argc, char** argv) {
  return skipper::ranked_benchmark_main({"traffic_perf", skipper::kIntroduction, __FILE__, skipper::run}, argc, argv);
}
