// Measures a precision profile: use and output errors of experts, what a layer's errors cost, and whether costs add up.
#pragma once

#include <optional>
#include <vector>

#include "evaluation/additive_fit.h"
#include "evaluation/expert_errors.h"
#include "evaluation/expert_samples.h"
#include "evaluation/format_scorer.h"
#include "planning/precision_profile.h"

namespace skipper {

struct ProfilerSettings {
  std::vector<WeightFormat> formats;  // ascending by bytes
  WeightFormat probe;                 // that layers are perturbed with, one at a time; one of them
  int num_plans = 30;                 // random ones, against which sums are held
  int group_passes = 96;              // at most so many groups of experts are perturbed where layers alone say too little
};

// How well the sums predict.
struct ProfileFit {
  double measured_kappa = 0.0;   // R² with kappa as perturbing single layers gives it
  std::optional<double> measured_groups;  // where that is too little: with errors as perturbing groups of experts gives them
  double worst_residual = 0.0;   // of the profile's predictions, in nats per token
  std::vector<PlanSums> plans;

  double r_squared() const { return measured_groups.value_or(measured_kappa); }
};

struct ProfilerResult {
  PrecisionProfile profile;
  ProfileFit fit;
  std::vector<std::vector<double>> relative_errors;  // [MoE layer][format] Σ use · error / Σ use · ‖g · E(x)‖²
};

// Below this R² the objective is refined. Errors can be large and harmless, so that some experts count less than their
// errors say: groups of experts show how much.
inline constexpr double kLeastRSquared = 0.9;

// Rank 0 of one; after keep_reference(), whose pass `samples` has seen. `source` is the original checkpoint.
class PrecisionProfiler {
 public:
  PrecisionProfiler(const WeightSource& source, const ExpertSamples& samples, FormatScorer& scorer, Stream& stream)
      : source_(source), samples_(samples), scorer_(scorer), stream_(stream) {}

  // Progress counts passes over the samples.
  ProfilerResult run(const ProfilerSettings& settings, const ProgressCallback& progress);

 private:
  void measure_use(PrecisionProfile& profile) const;
  void measure_errors(ProfilerResult& result) const;
  void measure_uniform(PrecisionProfile& profile);
  void measure_kappas(const ProfilerSettings& settings, PrecisionProfile& profile);
  void measure_fit(const ProfilerSettings& settings, ProfilerResult& result);
  void refine(const ProfilerSettings& settings, const std::vector<ExpertFormats>& plans, ProfilerResult& result);
  void measure_groups(const ProfilerSettings& settings, PrecisionProfile& profile);
  void measure_groups_of(int32_t layer, int num_groups, const WeightFormat& format, PrecisionProfile& profile);
  void predict(const std::vector<ExpertFormats>& plans, ProfilerResult& result) const;
  PlanSums sums_of(const PrecisionProfile& profile, const ExpertFormats& formats) const;
  FormatScorer::Score score(const ExpertFormats& formats);
  double measure(const ExpertFormats& formats);

  const WeightSource& source_;
  const ExpertSamples& samples_;
  FormatScorer& scorer_;
  Stream& stream_;
  ProgressCallback progress_;
  size_t passes_done_ = 0;
  size_t passes_total_ = 0;
};

// Experts of one layer whose errors are alike: in descending order of their error in a format, cut into so many equal parts.
std::vector<std::vector<int32_t>> groups_of_layer(const LayerSensitivity& layer, size_t format, int num_groups);

// A plan whose formats, bf16 among them, are drawn with weights that are drawn first: averages differ from plan to plan.
ExpertFormats random_formats(const ModelConfig& config, std::span<const WeightFormat> formats, uint64_t seed);

}  // namespace skipper
