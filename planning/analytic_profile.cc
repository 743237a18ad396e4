#include "planning/analytic_profile.h"

#include <algorithm>
#include <cmath>

namespace skipper {

std::vector<WeightFormat> analytic_formats() {
  return {{WeightKind::kInt8, 64}, {WeightKind::kInt4Asymmetric, 32}, {WeightKind::kInt4, 32}, {WeightKind::kInt4, 64},
          {WeightKind::kInt3Asymmetric, 32}, {WeightKind::kInt2Asymmetric, 32}};
}

double rounding_variance(const WeightFormat& format) {
  if (!format.is_integer()) return 0.0;
  // The largest of a group of n normal weights is near sqrt(2 ln n); codes spread from it to its negative.
  const double range = 2.0 * std::sqrt(2.0 * std::log(static_cast<double>(format.group_size)));
  const double codes = std::exp2(format.bits_per_code());
  // Symmetric codes leave one out, and cover one side more than it needs.
  const double steps = format.is_asymmetric() ? codes - 1.0 : codes - 2.0;
  const double step = range / steps;
  return step * step / 12.0;
}

PrecisionProfile analytic_profile(const ModelConfig& model, std::span<const WeightFormat> formats) {
  PrecisionProfile profile;
  profile.basis = ProfileBasis::kAnalytic;
  profile.model_fingerprint = model.fingerprint;
  profile.token_share[static_cast<size_t>(TokenClass::kText)] = {0.5, 0.5};
  profile.formats.assign(formats.begin(), formats.end());
  std::ranges::sort(profile.formats, {}, &WeightFormat::bits_per_weight);
  ExpertSensitivity expert;
  const double use = static_cast<double>(model.moe.top_k) / static_cast<double>(std::max<int64_t>(model.moe.num_experts, 1));
  expert.use[static_cast<size_t>(TokenClass::kText)] = {use, use};
  for (const WeightFormat& format : profile.formats) expert.error.push_back(rounding_variance(format));
  const int num_layers = model.num_moe_layers();
  const LayerSensitivity layer{.kappa = 1.0 / static_cast<double>(std::max<int64_t>(num_layers * model.moe.top_k, 1)),
                               .experts = {static_cast<size_t>(model.moe.num_experts), expert}};
  profile.layers.assign(static_cast<size_t>(num_layers), layer);
  return profile;
}

}  // namespace skipper
