#include "launcher/commands/calibrate_command.h"

#include <algorithm>
#include <cstdio>
#include <functional>
#include <optional>

#include "base/error.h"
#include "evaluation/frontier_file.h"
#include "evaluation/point_log.h"
#include "evaluation/skip_calibrator.h"
#include "evaluation/skip_evaluator.h"
#include "kernels/cpu/instruction_set.h"
#include "launcher/command_options.h"
#include "launcher/engine_phase.h"
#include "launcher/progress_line.h"
#include "launcher/rank_process.h"
#include "launcher/startup_agreement.h"

namespace skipper {
namespace {

BypassOutput bypass_from(const CommandLine& line) {
  try {
    return line.bypass.empty() ? BypassOutput::kZero : parse_bypass_output(line.bypass, "flag --bypass");
  } catch (const InvalidRequest& error) {
    throw UsageError(error.what());
  }
}

SampleLimits limits_from(const CommandLine& line) {
  SampleLimits limits;
  if (line.limit >= 0) limits.samples = line.limit;
  if (line.text_windows >= 0) limits.text_windows = line.text_windows;
  return limits;
}

// What rank 0 needs besides the model; found out before anything takes long.
struct CalibrationFiles {
  ScoredSamples samples;
  std::optional<PointLog> log;
};

std::string formats_of(const ServerConfig& config) {
  const auto format = [](const std::optional<WeightFormat>& asked) { return asked ? name_of(*asked) : "as in the checkpoint"; };
  return "experts " + format(config.weights.experts) + ", dense " + format(config.weights.dense) + ", activations " +
         std::string(name_of(config.weights.activation_dtype)) + ", KV " + std::string(name_of(config.kv_dtype)) + ", payload " +
         std::string(name_of(config.dispatch.payload_format)) + ", combine " +
         std::string(name_of(config.dispatch.combine_dtype)) + ", " + std::string(name_of(cpu::best_isa()));
}

// The file must be the same over any number of ranks: sums in the order of the router, and exact but for their rounding to FP32.
ServerConfig calibration_config_from(const CommandLine& line) {
  ServerConfig config = scoring_config_from(line);
  config.dispatch.sum_place = SumPlace::kSource;
  config.dispatch.combine_dtype = DType::kF32;
  return config;
}

// Traces are of all samples unless asked otherwise, and nobody waits for answers meanwhile.
RankOptions calibration_options_from(const CommandLine& line) {
  RankOptions options = rank_options_from(line);
  if (line.audit_rate < 0.0) options.audit.rate = 1.0;
  options.audit.slow_disk = SlowDisk::kWait;
  return options;
}

// Everything that a measurement depends on besides its point.
std::string settings_of(const CommandLine& line, const ScoredSamples& samples, const RankProcess& process) {
  return "model " + process.model_config().fingerprint + "; data " + samples.hash + "; bypass " +
         std::string(name_of(bypass_from(line))) + "; context " + std::to_string(process.config().engine.max_model_len) + "; " +
         formats_of(process.config());
}

// Both parts of the data need every kind of token that the model takes.
void require_classes(const ScoredSamples& samples, const ModelConfig& model) {
  const auto has = [&](const auto& predicate) { return std::any_of(samples.samples.begin(), samples.samples.end(), predicate); };
  if (!has([](const ScoredSample& s) { return s.split == DataSplit::kHeldOut; })) {
    throw InvalidFile(samples.path.string() + ": " + std::to_string(samples.samples.size()) +
                      " samples are too few to hold one of each " + std::to_string(kHeldOutEvery) + " out; give more");
  }
  if (!model.vision || has([](const ScoredSample& s) { return s.kind == SampleKind::kVisionQuestion; })) return;
  throw InvalidFile(samples.path.string() +
                    ": no question has a picture, so nothing tells how vision tokens may skip; add a vqa.jsonl with pictures");
}

CalibrationFiles open_files(const CommandLine& line, const RankProcess& process) {
  const ModelConfig& model = process.model_config();
  if (model.num_moe_layers() == 0) throw Error(line.model + ": has no expert layers; there is nothing to calibrate");
  CalibrationFiles files;
  files.samples = load_scored_samples(line.data, limits_from(line), model.eos_token_ids, process.processor().tokenizer());
  require_classes(files.samples, model);
  require_writable(line.out);
  files.log.emplace(line.out + ".partial", settings_of(line, files.samples, process));
  if (files.log->size() > 0) {
    std::fprintf(stderr, "going on with %zu measurements of %s.partial\n", files.log->size(), line.out.c_str());
  }
  return files;
}

// Counts are whole and far under 2^53, so that sums of doubles are exact.
void add_over_ranks(RoutingTrace& trace, Communicator& control) {
  std::vector<double> counts(trace.counts().begin(), trace.counts().end());
  Stream stream;
  control.all_reduce_sum(counts, stream);
  std::transform(counts.begin(), counts.end(), trace.counts().begin(), [](double count) { return static_cast<int64_t>(count); });
}

SkipEvaluator make_evaluator(const CommandLine& line, const CalibrationFiles& files, RankProcess& process, Engine& engine) {
  EvaluatorSettings settings{.num_ranks = process.world_size(), .vocab_size = process.model_config().vocab_size};
  settings.reference_bytes_per_rank = reference_bytes_from(line);
  return SkipEvaluator({engine, process.queue(), process.processor(), files.samples}, settings);
}

// "calibration" of "models/demo/calibration/".
std::string name_of_data(const std::filesystem::path& path) {
  return path.has_filename() ? path.filename().string() : path.parent_path().filename().string();
}

CalibrationOrigin origin_of(const Measurement& reference, const CalibrationFiles& files, const RankProcess& process) {
  CalibrationOrigin origin;
  origin.data = name_of_data(files.samples.path);
  origin.data_hash = files.samples.hash;
  origin.num_samples = static_cast<int64_t>(reference.samples.size());
  for (const SampleMeasurement& one : reference.samples) {
    if (files.samples.samples[one.sample].kind == SampleKind::kVisionQuestion) ++origin.num_vision_samples;
  }
  origin.num_scored = reference.num_scored();
  origin.formats = formats_of(process.config());
  return origin;
}

void print_report(const SkipCalibration& calibration) {
  std::printf("%lld samples, %lld of them with pictures, %lld scored tokens\n",
              static_cast<long long>(calibration.origin.num_samples),
              static_cast<long long>(calibration.origin.num_vision_samples),
              static_cast<long long>(calibration.origin.num_scored));
  for (size_t c = 0; c < kNumSkippableClasses; ++c) {
    const ClassCalibration& one = calibration.classes[c];
    const std::string name(kTokenClassNames[c]);
    std::printf("%s: KL without each MoE layer", name.c_str());
    for (const double kl : one.bypass_kl) std::printf(" %.4g", kl);
    std::printf("\n%s: alpha^%g", name.c_str(), one.exponent);
    for (const float alpha : one.alpha) std::printf(" %.4f", static_cast<double>(alpha));
    std::printf("\n");
    for (const ExponentTrial& trial : one.trials) {
      std::printf("  exponent %.2f: %.1f %% skipped, KL %.5f\n", trial.exponent, 100.0 * trial.skip_ratio, trial.kl);
    }
  }
}

}  // namespace

int run_calibrate(const CommandLine& line) {
  const BypassOutput bypass = bypass_from(line);
  RankProcess process([&] { return calibration_config_from(line); }, calibration_options_from(line));
  CalibrationFiles files;
  run_together(process.startup(), [&] {
    if (process.is_leader()) files = open_files(line, process);
  });
  process.load();
  const ModelConfig& model = process.model_config();
  SkipCalibration calibration{.model_fingerprint = model.fingerprint, .bypass = bypass};
  calibration.trace = RoutingTrace({model.num_moe_layers(), static_cast<int>(model.moe.num_experts)});
  process.add_routing_observer(
      [&](const MoeLayerConfig& layer, const TokenPolicies& policies, const Routing& routed, const Routing&) {
        calibration.trace.count(layer.moe_layer, policies, routed);
      });
  Engine& engine = process.start_engine(nullptr);
  std::optional<SkipEvaluator> evaluator;
  run_phase(process, engine, [&] {
    evaluator.emplace(make_evaluator(line, files, process, engine));
    const Measurement reference = evaluator->measure_reference(DataSplit::kSearch, ProgressLine("unskipped, samples"));
    calibration.origin = origin_of(reference, files, process);
  });
  process.end_audit();
  add_over_ranks(calibration.trace, process.control());
  run_phase(process, engine, [&] {
    const CalibratorSettings settings{model.num_moe_layers(), bypass, model.vision.has_value()};
    SkipCalibrator calibrator(settings, *evaluator, calibration.trace, *files.log);
    calibration.classes = calibrator.run(ProgressLine("calibrating, runs of samples"));
  });
  if (!process.is_leader()) return 0;
  write_file_atomically(line.out, to_json(calibration));
  files.log->remove();
  print_report(calibration);
  return 0;
}

}  // namespace skipper
