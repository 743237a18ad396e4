#include "evaluation/precision_profiler.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <random>

namespace skipper {
namespace {

// No expert counts less than this share of what its error says: the samples may not have met what it is for.
constexpr double kLeastGroupFactor = 0.02;

// 0 < u < 1, the same on every system.
double next_uniform(std::mt19937_64& random) { return (static_cast<double>(random() >> 11) + 0.5) * 0x1p-53; }

size_t draw(std::span<const double> weights, std::mt19937_64& random) {
  double sum = 0.0;
  for (const double weight : weights) sum += weight;
  double left = next_uniform(random) * sum;
  for (size_t i = 0; i + 1 < weights.size(); ++i) {
    if ((left -= weights[i]) < 0.0) return i;
  }
  return weights.size() - 1;
}

double layer_error(const PrecisionProfile& profile, int32_t layer, size_t format) {
  double sum = 0.0;
  for (int32_t expert = 0; expert < profile.num_experts(); ++expert) {
    sum += profile.use_of({layer, expert}) * profile.at({layer, expert}).error[format];
  }
  return sum;
}

size_t index_of(const PrecisionProfile& profile, const WeightFormat& format) {
  return static_cast<size_t>(std::ranges::find(profile.formats, format) - profile.formats.begin());
}

}  // namespace

ExpertFormats random_formats(const ModelConfig& config, std::span<const WeightFormat> formats, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<WeightFormat> choices(formats.begin(), formats.end());
  choices.emplace_back();
  std::vector<double> weights;
  for (size_t i = 0; i < choices.size(); ++i) weights.push_back(-std::log(next_uniform(random)));
  ExpertFormats plan = uniform_formats(config, {});
  for (std::vector<WeightFormat>& layer : plan) {
    for (WeightFormat& format : layer) format = choices[draw(weights, random)];
  }
  return plan;
}

ProfilerResult PrecisionProfiler::run(const ProfilerSettings& settings, const ProgressCallback& progress) {
  progress_ = progress;
  passes_done_ = 0;
  passes_total_ = settings.formats.size() + static_cast<size_t>(source_.config.num_moe_layers() + settings.num_plans);
  ProfilerResult result;
  result.profile.model_fingerprint = source_.config.fingerprint;
  result.profile.formats = settings.formats;
  measure_use(result.profile);
  measure_errors(result);
  measure_uniform(result.profile);
  measure_kappas(settings, result.profile);
  measure_fit(settings, result);
  return result;
}

void PrecisionProfiler::measure_use(PrecisionProfile& profile) const {
  const auto all = static_cast<double>(std::max<int64_t>(samples_.num_tokens(), 1));
  profile.layers.resize(static_cast<size_t>(source_.config.num_moe_layers()));
  for (LayerSensitivity& layer : profile.layers) layer.experts.resize(static_cast<size_t>(source_.config.moe.num_experts));
  for (size_t c = 0; c < kNumTokenClasses; ++c) {
    for (size_t p = 0; p < kNumTokenPhases; ++p) {
      const auto token_class = static_cast<TokenClass>(c);
      const auto phase = static_cast<TokenPhase>(p);
      const auto tokens = static_cast<double>(samples_.num_tokens(token_class, phase));
      profile.token_share[c][p] = tokens / all;
      if (tokens == 0.0) continue;
      for (int layer = 0; layer < profile.num_moe_layers(); ++layer) {
        for (int expert = 0; expert < profile.num_experts(); ++expert) {
          const auto pairs = static_cast<double>(samples_.num_pairs(layer, expert, token_class, phase));
          profile.layers[static_cast<size_t>(layer)].experts[static_cast<size_t>(expert)].use[c][p] = pairs / tokens;
        }
      }
    }
  }
}

void PrecisionProfiler::measure_errors(ProfilerResult& result) const {
  PrecisionProfile& profile = result.profile;
  for (int layer = 0; layer < profile.num_moe_layers(); ++layer) {
    const std::vector<ExpertErrors> errors = measure_expert_errors(source_, layer, samples_, profile.formats, stream_);
    double output = 0.0;
    for (size_t expert = 0; expert < errors.size(); ++expert) {
      profile.layers[static_cast<size_t>(layer)].experts[expert].error = errors[expert].error;
      output += profile.use_of({layer, static_cast<int32_t>(expert)}) * errors[expert].output;
    }
    std::vector<double>& relative = result.relative_errors.emplace_back();
    for (size_t f = 0; f < profile.formats.size(); ++f) {
      relative.push_back(output > 0.0 ? layer_error(profile, layer, f) / output : 0.0);
    }
  }
}

FormatScorer::Score PrecisionProfiler::score(const ExpertFormats& formats) {
  FormatScorer::Score score = scorer_.score(formats);
  progress_(++passes_done_, passes_total_);
  return score;
}

double PrecisionProfiler::measure(const ExpertFormats& formats) { return score(formats).kl; }

void PrecisionProfiler::measure_uniform(PrecisionProfile& profile) {
  for (const WeightFormat& format : profile.formats) {
    profile.uniform_loss.push_back(measure(uniform_formats(source_.config, format)));
  }
}

// One layer at a time: as many passes as layers, not as experts.
void PrecisionProfiler::measure_kappas(const ProfilerSettings& settings, PrecisionProfile& profile) {
  const size_t probe = index_of(profile, settings.probe);
  for (int32_t layer = 0; layer < profile.num_moe_layers(); ++layer) {
    ExpertFormats formats = uniform_formats(source_.config, {});
    std::ranges::fill(formats[static_cast<size_t>(layer)], settings.probe);
    const double kl = measure(formats), error = layer_error(profile, layer, probe);
    profile.layers[static_cast<size_t>(layer)].kappa = error > 0.0 ? kl / error : 0.0;
  }
}

PlanSums PrecisionProfiler::sums_of(const PrecisionProfile& profile, const ExpertFormats& formats) const {
  PlanSums sums{.layers = std::vector<double>(formats.size(), 0.0)};
  for (const WeightFormat& format : profile.formats) {
    const std::vector<double> losses = expert_losses(profile, format);
    for (size_t layer = 0; layer < formats.size(); ++layer) {
      for (size_t expert = 0; expert < formats[layer].size(); ++expert) {
        if (formats[layer][expert] == format) sums.layers[layer] += losses[layer * formats[layer].size() + expert];
      }
    }
  }
  return sums;
}

void PrecisionProfiler::measure_fit(const ProfilerSettings& settings, ProfilerResult& result) {
  if (settings.num_plans == 0) return;
  std::vector<ExpertFormats> plans;
  for (int i = 0; i < settings.num_plans; ++i) {
    plans.push_back(random_formats(source_.config, settings.formats, static_cast<uint64_t>(i) + 1));
    result.fit.plans.push_back(sums_of(result.profile, plans.back()));
    result.fit.plans.back().measured = measure(plans.back());
  }
  result.fit.measured_kappa = r_squared(result.fit.plans);
  if (result.fit.measured_kappa < kLeastRSquared) refine(settings, plans, result);
  for (const PlanSums& plan : result.fit.plans) {
    result.fit.worst_residual = std::max(result.fit.worst_residual, std::abs(plan.measured - plan.predicted()));
  }
  result.profile.additive_fit = {.r_squared = result.fit.r_squared(), .num_plans = settings.num_plans};
}

void PrecisionProfiler::refine(const ProfilerSettings& settings, const std::vector<ExpertFormats>& plans,
                               ProfilerResult& result) {
  measure_groups(settings, result.profile);
  predict(plans, result);
  result.fit.measured_groups = r_squared(result.fit.plans);
}

// Errors become what they would be if kappa were the same for all experts of a layer. Of what a group adds to that only what its
// samples agree on is believed: an expert that these few met seldom is not harmless for that.
void PrecisionProfiler::measure_groups(const ProfilerSettings& settings, PrecisionProfile& profile) {
  const int num_groups = std::clamp(settings.group_passes / profile.num_moe_layers(), 1, profile.num_experts());
  passes_total_ += static_cast<size_t>(num_groups * profile.num_moe_layers());
  for (int32_t layer = 0; layer < profile.num_moe_layers(); ++layer) {
    measure_groups_of(layer, num_groups, settings.probe, profile);
  }
}

void PrecisionProfiler::measure_groups_of(int32_t layer, int num_groups, const WeightFormat& format, PrecisionProfile& profile) {
  const size_t probe = index_of(profile, format);
  LayerSensitivity& sensitivity = profile.layers[static_cast<size_t>(layer)];
  const std::vector<std::vector<int32_t>> groups = groups_of_layer(sensitivity, probe, num_groups);
  std::vector<double> factors, errors, predicted;
  for (const std::vector<int32_t>& group : groups) {
    ExpertFormats formats = uniform_formats(source_.config, {});
    double sum = 0.0;
    for (const int32_t expert : group) {
      formats[static_cast<size_t>(layer)][static_cast<size_t>(expert)] = format;
      sum += sensitivity.kappa * profile.use_of({layer, expert}) * profile.at({layer, expert}).error[probe];
    }
    const LossEstimate kl = estimate_loss(score(formats).samples);
    predicted.push_back(sum);
    factors.push_back(sum > 0.0 ? kl.mean / sum : 1.0);
    errors.push_back(sum > 0.0 ? kl.standard_error / sum : 0.0);
  }
  std::vector<double> believed = shrink_to_mean(factors, errors, predicted);
  for (double& factor : believed) factor = std::max(factor, kLeastGroupFactor);
  // Groups share out what their layer loses, which was measured at once: what they lose one by one sums to less.
  const double whole = std::inner_product(predicted.begin(), predicted.end(), believed.begin(), 0.0);
  if (whole <= 0.0) return;
  const double scale = std::accumulate(predicted.begin(), predicted.end(), 0.0) / whole;
  for (size_t i = 0; i < groups.size(); ++i) {
    if (predicted[i] <= 0.0) continue;
    for (const int32_t expert : groups[i]) {
      for (double& error : sensitivity.experts[static_cast<size_t>(expert)].error) error *= scale * believed[i];
    }
  }
}

void PrecisionProfiler::predict(const std::vector<ExpertFormats>& plans, ProfilerResult& result) const {
  for (size_t i = 0; i < plans.size(); ++i) result.fit.plans[i].layers = sums_of(result.profile, plans[i]).layers;
}

std::vector<std::vector<int32_t>> groups_of_layer(const LayerSensitivity& layer, size_t format, int num_groups) {
  std::vector<int32_t> order(layer.experts.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, std::ranges::greater{},
                           [&](int32_t expert) { return layer.experts[static_cast<size_t>(expert)].error[format]; });
  std::vector<std::vector<int32_t>> groups(static_cast<size_t>(num_groups));
  for (size_t i = 0; i < order.size(); ++i) groups[i * groups.size() / order.size()].push_back(order[i]);
  return groups;
}

}  // namespace skipper
