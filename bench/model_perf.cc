// Tokens per second of a model's prefill and decode steps, without server and sampling; one process or several under mpirun.
#include <gflags/gflags.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "bench/benchmark_flags.h"
#include "bench/benchmark_report.h"
#include "machine/memory_read_rate.h"
#include "bench/model_benchmark.h"
#include "bench/model_report.h"
#include "bench/ranked_benchmark.h"
#include "comm/communicator_factory.h"
#include "launcher/startup_agreement.h"

DEFINE_string(model, "", "checkpoint directory (required)");
DEFINE_string(experts, "", "format of the experts, such as int8-g64 or int4-g32 (default: as in the checkpoint)");
DEFINE_string(dense, "", "format of attention projections, dense layers and head (default: as in the checkpoint)");
DEFINE_string(json, "", "file for the figures");
DEFINE_int32(threads, 0, "threads of each rank; 0 shares the cores of the machine among its ranks");
DEFINE_string(prefill, "512,2048", "prompt lengths; every rank runs one sequence of each, in one step");
DEFINE_string(decode, "1,4,16,32", "numbers of streams, shared out over the ranks, each with its own tokens");
DEFINE_int64(context, 16, "tokens of a stream before it decodes");
DEFINE_int64(steps, 24, "decode steps of one run");
DEFINE_int64(repeat, 5, "timed runs of each case, all cases in turn");

namespace skipper {
namespace {

constexpr int kMaxThreads = 1024;
constexpr std::chrono::minutes kDeadline{10};

constexpr char kIntroduction[] =
    "Measures prefill and decode of a model in tokens/s, beside the read rate of main memory. Each case is verified before it\n"
    "is timed: finite logits, and the same bits in every run.\n\n"
    "  model_perf --model bench-model --threads 2 --json figures.json\n"
    "  mpirun -n 2 model_perf --model bench-model --threads 1 --prefill 512 --decode 32\n\n";

void check_flags() {
  if (FLAGS_model.empty()) throw UsageError("flag --model is missing; give the checkpoint directory");
  if (FLAGS_threads < 0 || FLAGS_threads > kMaxThreads) {
    throw UsageError("flag --threads: " + std::to_string(FLAGS_threads) + " is not from 0 to " + std::to_string(kMaxThreads));
  }
  const std::pair<const char*, int64_t> counts[] = {
      {"context", FLAGS_context}, {"steps", FLAGS_steps}, {"repeat", FLAGS_repeat}};
  for (const auto& [name, value] : counts) {
    if (value < 1) throw UsageError(std::string("flag --") + name + ": " + std::to_string(value) + " is less than 1");
  }
}

std::optional<WeightFormat> read_format(const std::string& flag, const std::string& text) {
  if (text.empty()) return std::nullopt;
  try {
    return parse_weight_format(text, "flag --" + flag);
  } catch (const InvalidRequest& error) {
    throw UsageError(error.what());
  }
}

ModelBenchmarkConfig read_flags() {
  check_flags();
  ModelBenchmarkConfig config{
      .model = FLAGS_model, .formats = {}, .cases = {}, .context = FLAGS_context, .decode_steps = FLAGS_steps};
  config.formats.experts = read_format("experts", FLAGS_experts);
  config.formats.dense = read_format("dense", FLAGS_dense);
  for (const int64_t size : parse_sizes("prefill", FLAGS_prefill)) config.cases.push_back({Phase::kPrefill, size});
  for (const int64_t size : parse_sizes("decode", FLAGS_decode)) config.cases.push_back({Phase::kDecode, size});
  if (config.cases.empty()) throw UsageError("flags --prefill and --decode are both empty; nothing to measure");
  return config;
}

// All ranks read at once; the sum of what each reads in a second.
double measure_read_rate(MemoryReadRate& memory, Communicator& data, Stream& stream) {
  data.barrier(stream);
  double rate = static_cast<double>(memory.num_bytes()) / memory.measure_seconds();
  data.all_reduce_sum({&rate, 1}, stream);
  return rate;
}

// Cases take turns, so that a busy moment of the machine does not fall on one of them alone.
ModelReport measure(ModelBenchmark& benchmark, ModelReport report, Communicator& data, ThreadPool& workers) {
  Stream stream(workers);
  for (size_t i = 0; i < report.config.cases.size(); ++i) {
    report.cases.push_back({.benchmark = report.config.cases[i], .work = benchmark.verify(i), .tokens_per_second = {}});
  }
  MemoryReadRate memory(workers);
  for (int64_t round = 0; round < FLAGS_repeat; ++round) {
    report.read_bytes_per_second.values.push_back(measure_read_rate(memory, data, stream));
    for (size_t i = 0; i < report.cases.size(); ++i) {
      report.cases[i].tokens_per_second.values.push_back(benchmark.measure(i));
    }
  }
  return report;
}

void run() {
  const ModelBenchmarkConfig config = read_flags();
  ProcessGroup group = join_process_group();
  open_communicators({.deadline = kDeadline}, group);
  ThreadPool workers(FLAGS_threads > 0 ? FLAGS_threads : threads_of_rank(group.node_size));
  Stream stream(workers);
  const ClusterTopology topology = ClusterTopology::discover(*group.startup, group.host_name, stream);
  std::unique_ptr<ModelBenchmark> benchmark;
  run_together(*group.startup,
               [&] { benchmark = std::make_unique<ModelBenchmark>(config, *group.data, topology, workers); });
  const ModelReport report = measure(*benchmark,
                                     {.config = config,
                                      .num_ranks = group.data->size(),
                                      .threads_per_rank = workers.num_threads(),
                                      .num_experts = benchmark->model_config().moe.num_experts,
                                      .cases = {},
                                      .read_bytes_per_second = {}},
                                     *group.data, workers);
  if (group.data->rank() == 0) publish(to_table(report), to_json(report), FLAGS_json);
}

}  // namespace
}  // namespace skipper

int main(int argc, char** argv) {
  return skipper::ranked_benchmark_main({"model_perf", skipper::kIntroduction, __FILE__, skipper::run}, argc, argv);
}
