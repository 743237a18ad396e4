// How much faster a prefill gets when pairs are skipped, beside what Amdahl's law allows.
#include <gflags/gflags.h>

#include <algorithm>
#include <iomanip>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "base/error.h"
#include "bench/benchmark_flags.h"
#include "bench/benchmark_report.h"
#include "bench/skip_benchmark.h"
#include "comm/communicator_factory.h"

DEFINE_string(model, "", "checkpoint directory (required)");
DEFINE_string(json, "", "file for the figures");
DEFINE_int32(threads, 0, "threads; 0 takes all cores");
DEFINE_int64(prompt, 512, "tokens of the prompt");
DEFINE_string(skip, "50,75,88", "per cent of the pairs to skip, each 1 to 99");
DEFINE_int64(repeat, 9, "timed runs of each case, all cases in turn");

namespace skipper {
namespace {

constexpr int kMaxThreads = 1024;
constexpr std::chrono::minutes kDeadline{10};

constexpr char kIntroduction[] =
    "Measures a prefill without skipping, with thresholds that skip nothing (the cost of deciding), and with given shares of\n"
    "its pairs skipped. The bound is Amdahl's: time outside of experts stays, time in experts shrinks like the pairs.\n\n"
    "  skip_perf --model bench-model --threads 2 --skip 50,75,88\n\n";

struct CaseReport {
  double skipped = 0.0;
  std::vector<PrefillTime> times;
};

PrefillTime median_of(const std::vector<PrefillTime>& times) {
  const auto median = [&](double PrefillTime::*field) {
    std::vector<double> values;
    for (const PrefillTime& time : times) values.push_back(time.*field);
    std::ranges::nth_element(values, values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2));
    return values[values.size() / 2];
  };
  return {median(&PrefillTime::seconds), median(&PrefillTime::expert_seconds)};
}

SkipBenchmarkConfig read_flags() {
  if (FLAGS_model.empty()) throw UsageError("flag --model is missing; give the checkpoint directory");
  if (FLAGS_threads < 0 || FLAGS_threads > kMaxThreads) {
    throw UsageError("flag --threads: " + std::to_string(FLAGS_threads) + " is not from 0 to " + std::to_string(kMaxThreads));
  }
  if (FLAGS_prompt < 1) throw UsageError("flag --prompt: " + std::to_string(FLAGS_prompt) + " is less than 1");
  if (FLAGS_repeat < 1) throw UsageError("flag --repeat: " + std::to_string(FLAGS_repeat) + " is less than 1");
  SkipBenchmarkConfig config{.model = FLAGS_model, .formats = {}, .prompt_tokens = FLAGS_prompt, .shares = {}};
  for (const int64_t percent : parse_sizes("skip", FLAGS_skip)) {
    if (percent > 99) throw UsageError("flag --skip: " + std::to_string(percent) + " is not from 1 to 99");
    config.shares.push_back(static_cast<double>(percent) / 100.0);
  }
  return config;
}

std::vector<CaseReport> measure(SkipBenchmark& benchmark) {
  std::vector<CaseReport> reports(benchmark.num_cases());
  for (size_t i = 0; i < reports.size(); ++i) reports[i].skipped = benchmark.verify(i);
  for (int64_t round = 0; round < FLAGS_repeat; ++round) {
    for (size_t i = 0; i < reports.size(); ++i) reports[i].times.push_back(benchmark.measure(i));
  }
  return reports;
}

// {"cases": [{"skipped", "seconds", "expert_seconds", "expert_speedup", "speedup", "bound", "share_of_bound"}]}, medians.
nlohmann::json to_json(const std::vector<CaseReport>& reports) {
  const PrefillTime whole = median_of(reports[0].times);
  nlohmann::json cases = nlohmann::json::array();
  for (const CaseReport& report : reports) {
    const PrefillTime time = median_of(report.times);
    const double bound = whole.seconds / (whole.seconds - whole.expert_seconds * report.skipped);
    const double speedup = whole.seconds / time.seconds;
    cases.push_back({{"skipped", report.skipped},
                     {"seconds", time.seconds},
                     {"expert_seconds", time.expert_seconds},
                     {"expert_speedup", whole.expert_seconds / time.expert_seconds},
                     {"speedup", speedup},
                     {"bound", bound},
                     {"share_of_bound", speedup / bound}});
  }
  return {{"prompt", FLAGS_prompt}, {"repeat", FLAGS_repeat}, {"cases", cases}};
}

std::string to_table(const nlohmann::json& report) {
  std::ostringstream text;
  text << "pairs skipped   prefill ms   experts ms   experts faster   prefill faster   bound   of the bound\n" << std::fixed;
  for (const nlohmann::json& row : report.at("cases")) {
    text << std::setprecision(1) << std::setw(11) << 100.0 * row.at("skipped").get<double>() << " %" << std::setw(13)
         << 1e3 * row.at("seconds").get<double>() << std::setw(13) << 1e3 * row.at("expert_seconds").get<double>()
         << std::setprecision(2) << std::setw(17) << row.at("expert_speedup").get<double>() << std::setw(17)
         << row.at("speedup").get<double>() << std::setw(8) << row.at("bound").get<double>() << std::setprecision(1)
         << std::setw(13) << 100.0 * row.at("share_of_bound").get<double>() << " %\n";
  }
  return text.str();
}

void run() {
  const SkipBenchmarkConfig config = read_flags();
  ProcessGroup group = join_process_group();
  open_communicators({.deadline = kDeadline}, group);
  ThreadPool workers(FLAGS_threads > 0 ? FLAGS_threads : std::max(1, static_cast<int>(std::thread::hardware_concurrency())));
  Stream stream(workers);
  const ClusterTopology topology = ClusterTopology::discover(*group.startup, group.host_name, stream);
  SkipBenchmark benchmark(config, *group.data, topology, workers);
  const nlohmann::json report = to_json(measure(benchmark));
  publish(to_table(report), report, FLAGS_json);
}

}  // namespace
}  // namespace skipper

int main(int argc, char** argv) {
  return skipper::benchmark_main({"skip_perf", skipper::kIntroduction, __FILE__, skipper::run}, argc, argv);
}
