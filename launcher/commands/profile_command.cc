#include "launcher/commands/profile_command.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <sstream>

#include "base/error.h"
#include "evaluation/frontier_file.h"
#include "evaluation/precision_profiler.h"
#include "launcher/command_options.h"
#include "launcher/engine_phase.h"
#include "launcher/point_identity.h"
#include "launcher/progress_line.h"
#include "launcher/rank_process.h"
#include "launcher/startup_agreement.h"

namespace skipper {
namespace {

constexpr const char* kDefaultFormats = "int2a-g32,int3a-g32,int4-g64,int4a-g32,int8-g64";
constexpr int64_t kDefaultSamples = 128;
constexpr int64_t kDefaultTextWindows = 28;
constexpr int kRowsPerExpert = 64;

std::vector<WeightFormat> formats_from(const CommandLine& line) {
  std::vector<WeightFormat> formats;
  std::istringstream names(line.formats.empty() ? kDefaultFormats : line.formats);
  for (std::string name; std::getline(names, name, ',');) {
    try {
      formats.push_back(parse_weight_format(name, "flag --formats"));
    } catch (const InvalidRequest& error) {
      throw UsageError(error.what());
    }
    if (!formats.back().is_integer()) throw UsageError("flag --formats: " + name + " is not rounded; give integer formats");
    if (std::ranges::count(formats, formats.back()) > 1) throw UsageError("flag --formats: " + name + " stands twice");
  }
  std::ranges::sort(formats, {}, [](const WeightFormat& format) { return format.bits_per_weight(); });
  return formats;
}

// Rounded enough to tell layers apart, not so much that the model falls apart: the one nearest to three bits.
WeightFormat probe_of(const std::vector<WeightFormat>& formats) {
  return *std::ranges::min_element(formats, {}, [](const WeightFormat& f) { return std::abs(f.bits_per_code() - 3); });
}

void check_subject(const RankProcess& process, const CommandLine& line) {
  if (process.world_size() > 1) {
    throw Error("skipper profile measures on one rank, but " + std::to_string(process.world_size()) +
                " were started; run it without mpirun");
  }
  const ModelConfig& model = process.model_config();
  if (model.num_moe_layers() == 0) throw Error(line.model + ": has no expert layers; there is nothing to profile");
  if (process.config().weights.experts) {
    throw Error("weights.experts: " + name_of(*process.config().weights.experts) +
                " rounds what a profile compares with; leave the setting out");
  }
  if (!model.quantization) return;
  throw Error(line.model + ": is quantised already; profile its original, whose fingerprint is " +
              model.quantization->source_fingerprint);
}

ScoredSamples load_samples(const CommandLine& line, const RankProcess& process) {
  const SampleLimits limits{.samples = line.limit >= 0 ? line.limit : kDefaultSamples,
                            .text_windows = line.text_windows >= 0 ? line.text_windows : kDefaultTextWindows,
                            .window_tokens = kPlannedWindow};
  return load_scored_samples(line.data, limits, process.model_config().eos_token_ids, process.processor().tokenizer());
}

// "calibration" of "models/demo/calibration/".
std::string name_of_data(const std::filesystem::path& path) {
  return path.has_filename() ? path.filename().string() : path.parent_path().filename().string();
}

ExpertSampleShape sample_shape(const ModelConfig& model) {
  return {model.num_moe_layers(), static_cast<int>(model.moe.num_experts), kRowsPerExpert};
}

ProfilerSettings settings_from(const CommandLine& line) {
  ProfilerSettings settings{.formats = formats_from(line), .probe = {}};
  settings.probe = probe_of(settings.formats);
  if (line.plans >= 0) settings.num_plans = line.plans;
  return settings;
}

void print_errors(const ProfilerResult& result) {
  const PrecisionProfile& profile = result.profile;
  std::printf("%-10s %12s  relative error of each MoE layer's output\n", "format", "uniform KL");
  for (size_t f = 0; f < profile.formats.size(); ++f) {
    std::printf("%-10s %12.6f ", name_of(profile.formats[f]).c_str(), profile.uniform_loss[f]);
    for (const std::vector<double>& layer : result.relative_errors) std::printf(" %.5f", layer[f]);
    std::printf("\n");
  }
  std::printf("kappa     ");
  for (const LayerSensitivity& layer : profile.layers) std::printf(" %.5g", layer.kappa);
  std::printf("\n");
}

void print_fit(const ProfilerResult& result) {
  const ProfileFit& fit = result.fit;
  if (fit.plans.empty()) return;
  std::printf("sums against %zu random plans: R² %.4f with kappa as measured", fit.plans.size(), fit.measured_kappa);
  if (fit.measured_groups) std::printf(", %.4f with errors corrected by perturbing groups of experts", *fit.measured_groups);
  std::printf("; worst residual %.5f nats per token\n", fit.worst_residual);
}

class Profiling {
 public:
  Profiling(const CommandLine& line, RankProcess& process, ScoredSamples samples)
      : line_(line),
        process_(process),
        scored_(std::move(samples)),
        seen_(sample_shape(process.model_config())) {}

  ProfilerResult run() {
    Engine& engine = process_.start_engine(nullptr);
    ProfilerResult result;
    run_phase(process_, engine, [&] { result = measure(engine); });
    return result;
  }

 private:
  ProfilerResult measure(Engine& engine) {
    FormatScorer scorer({engine, process_.queue(), process_.processor(), scored_, process_.model(), process_.workers()},
                        {.split = DataSplit::kSearch, .level = process_.level(), .reference_bytes = reference_bytes_from(line_)});
    observe();
    scorer.keep_reference(ProgressLine("unrounded, samples"));
    process_.model().set_activation_observer(nullptr);
    is_seen_ = true;
    const Checkpoint checkpoint(line_.model);
    Stream stream(process_.workers());
    const WeightSource source{checkpoint, process_.model_config(), process_.config().weights};
    PrecisionProfiler profiler(source, seen_, scorer, stream);
    ProfilerResult result = profiler.run(settings_from(line_), ProgressLine("profiling, passes over the samples"));
    result.profile.operating_point = identity_of(process_.levels().levels[process_.level()]);
    result.profile.data = {name_of_data(scored_.path), scored_.hash, seen_.num_tokens()};
    return result;
  }

  void observe() {
    process_.add_routing_observer(
        [this](const MoeLayerConfig& layer, const TokenPolicies& policies, const Routing&, const Routing& kept) {
          if (!is_seen_) seen_.see_routing(layer.moe_layer, policies, kept);
        });
    process_.model().set_activation_observer([this](const ObservedRows& rows, Stream&) { seen_.see_inputs(rows); });
  }

  const CommandLine& line_;
  RankProcess& process_;
  ScoredSamples scored_;
  ExpertSamples seen_;
  bool is_seen_ = false;
};

}  // namespace

int run_profile(const CommandLine& line) {
  formats_from(line);
  RankProcess process([&] { return scoring_config_from(line); }, rank_options_from(line));
  ScoredSamples samples;
  run_together(process.startup(), [&] {
    check_subject(process, line);
    require_writable(line.out);
    samples = load_samples(line, process);
  });
  process.load();
  const ProfilerResult result = Profiling(line, process, std::move(samples)).run();
  write_file_atomically(line.out, to_json(result.profile));
  print_errors(result);
  print_fit(result);
  return 0;
}

}  // namespace skipper
