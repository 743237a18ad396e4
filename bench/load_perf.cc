// Seconds to load a checkpoint on one rank, beside those to read its files from the page cache.
#include <gflags/gflags.h>

#include <algorithm>
#include <chrono>
#include <iomanip>
#include <iostream>
#include <thread>

#include "base/error.h"
#include "bench/benchmark_flags.h"
#include "bench/file_read_rate.h"
#include "experts/expert_store.h"
#include "model/weight_loader.h"

DEFINE_string(model, "", "checkpoint directory (required)");
DEFINE_string(residence, "memory", "memory, or mapped: a quantised checkpoint used in place");
DEFINE_int32(threads, 0, "threads; 0 takes all cores");
DEFINE_int32(repeat, 5, "timed runs of each case, all cases in turn");

namespace skipper {
namespace {

constexpr int kMaxThreads = 1024;

constexpr char kIntroduction[] =
    "Measures, with the same threads and in turn: reading the weight files from the page cache into small buffers, the same\n"
    "into fresh memory, and loading the model. One unmeasured round comes first and fills the page cache.\n\n"
    "  load_perf --model bench-model --threads 2\n\n";

struct Case {
  const char* name;
  std::vector<double> seconds;
};

void check_flags() {
  if (FLAGS_model.empty()) throw UsageError("flag --model is missing; give the checkpoint directory");
  if (FLAGS_threads < 0 || FLAGS_threads > kMaxThreads) {
    throw UsageError("flag --threads: " + std::to_string(FLAGS_threads) + " is not from 0 to " + std::to_string(kMaxThreads));
  }
  if (FLAGS_repeat < 1) throw UsageError("flag --repeat: " + std::to_string(FLAGS_repeat) + " is less than 1");
}

// What a rank alone does between reading config.json and having its weights.
double load_seconds(ThreadPool& workers) {
  const ModelConfig config = load_model_config(FLAGS_model);
  const WeightConfig formats{.residence = parse_weight_residence(FLAGS_residence, "flag --residence")};
  check_formats(config, formats);
  const auto start = std::chrono::steady_clock::now();
  const Checkpoint checkpoint(FLAGS_model);
  const WeightSource source{checkpoint, config, formats};
  const ExpertPlacement placement =
      ExpertPlacement::contiguous({config.num_moe_layers(), static_cast<int>(config.moe.num_experts), 1});
  ExpertStore store(expert_store_config(source, placement, 0));
  LoadQueue queue;
  const DenseWeights dense = load_dense_weights(source, queue);
  load_experts(source, store, queue);
  queue.run(workers, nullptr);
  settle_mapping(source, dense.weights.embedding);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void print(const std::vector<Case>& cases, size_t num_bytes) {
  const double gigabytes = static_cast<double>(num_bytes) / 1e9;
  const double fastest_read = std::ranges::min(cases.front().seconds);
  std::cout << std::fixed << std::setprecision(3) << gigabytes << " GB\n";
  for (const Case& measured : cases) {
    const double best = std::ranges::min(measured.seconds);
    std::cout << std::left << std::setw(26) << measured.name << std::right << " best " << best << " s, "
              << gigabytes / best << " GB/s, " << 100.0 * fastest_read / best << " % of the page cache; all:";
    for (const double seconds : measured.seconds) std::cout << ' ' << seconds;
    std::cout << '\n';
  }
}

void run() {
  check_flags();
  ThreadPool workers(FLAGS_threads > 0 ? FLAGS_threads : static_cast<int>(std::thread::hardware_concurrency()));
  FileReadRate files(FLAGS_model, workers);
  std::vector<Case> cases = {{"page cache", {}}, {"page cache to fresh memory", {}}, {"load", {}}};
  for (int round = 0; round <= FLAGS_repeat; ++round) {
    const double seconds[] = {files.measure_seconds(ReadTarget::kSmallBuffers), files.measure_seconds(ReadTarget::kFreshMemory),
                              load_seconds(workers)};
    for (size_t i = 0; round > 0 && i < cases.size(); ++i) cases[i].seconds.push_back(seconds[i]);
  }
  print(cases, files.num_bytes());
}

}  // namespace
}  // namespace skipper

int main(int argc, char** argv) {
  return skipper::benchmark_main({"load_perf", skipper::kIntroduction, __FILE__, skipper::run}, argc, argv);
}
