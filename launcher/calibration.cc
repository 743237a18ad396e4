#include "launcher/calibration.h"

#include <glog/logging.h>

#include <cstdio>
#include <filesystem>
#include <limits>

#include "base/error.h"
#include "evaluation/calibration_data.h"
#include "launcher/progress_line.h"
#include "launcher/rank_process.h"

namespace skipper {
namespace {

constexpr size_t kInFlight = 32;

// The defaults but for logits of every token: then all tokens pass the last layer and the head.
ServerConfig calibration_config(const CommandLine& line) {
  ServerConfig config;
  if (line.threads >= 0) config.cpu.threads = line.threads;
  config.engine.max_logit_rows = config.engine.max_tokens_per_step;
  return config;
}

CalibrationData load_data(const CommandLine& line, const RankProcess& process) {
  const int64_t limit = line.calibration_limit < 0 ? std::numeric_limits<int64_t>::max() : line.calibration_limit;
  return load_calibration_data(line.calibration, limit, process.processor().tokenizer());
}

CalibrationRun run(const CalibrationData& data, RankProcess& process, const std::function<void()>& check_stopped) {
  Engine& engine = process.start_engine(nullptr);
  RequestDriver driver(engine, process.queue(), kInFlight);
  const CalibrationSettings settings{process.model_config().eos_token_ids, process.config().engine.max_model_len};
  ProgressLine show_progress("calibrating, samples");
  const CalibrationRun result =
      run_calibration(data, settings, process.processor(), driver, [&](size_t done, size_t total) {
        check_stopped();
        show_progress(done, total);
      });
  engine.finish();
  return result;
}

// "calibration" of "models/demo/calibration/".
std::string name_of_data(const std::filesystem::path& path) {
  return path.has_filename() ? path.filename().string() : path.parent_path().filename().string();
}

void require_enough(const CalibrationRecord& record, const CommandLine& line) {
  if (record.tokens >= ActivationStatistics::kLeastRows) return;
  throw InvalidFile(line.calibration + ": " + std::to_string(record.samples) + " sample(s) hold " +
                    std::to_string(record.tokens) + " tokens in all; at least " +
                    std::to_string(ActivationStatistics::kLeastRows) + " are needed, and thousands to tell much");
}

void print_summary(const Calibration& calibration, const CalibrationRun& run, const ModelConfig& model) {
  const int64_t num_experts = model.num_moe_layers() * model.moe.num_experts;
  std::fprintf(stderr, "calibrated on %lld samples (%lld longer than the context left out), %lld tokens; %lld of %lld experts "
               "saw enough rows of their own\n",
               static_cast<long long>(run.samples), static_cast<long long>(run.too_long),
               static_cast<long long>(calibration.record.tokens),
               static_cast<long long>(calibration.statistics.num_measured_experts()), static_cast<long long>(num_experts));
}

}  // namespace

Calibration calibrate(const CommandLine& line, const std::function<void()>& check_stopped) {
  Calibration calibration;
  RankOptions options;
  options.model = line.model;
  RankProcess process([&] { return calibration_config(line); }, options);
  const CalibrationData data = load_data(line, process);
  process.load();
  process.model().set_activation_observer(
      [&](const ObservedRows& rows, Stream& stream) { calibration.statistics.add(rows, stream); });
  const CalibrationRun result = run(data, process, check_stopped);
  const ChannelSquares* tokens = calibration.statistics.find({MatrixInput::kAttention});
  CHECK(tokens != nullptr) << "samples ran, but nothing was observed";
  calibration.record = {name_of_data(line.calibration), result.samples, tokens->num_rows};
  require_enough(calibration.record, line);
  print_summary(calibration, result, process.model_config());
  return calibration;
}

}  // namespace skipper
