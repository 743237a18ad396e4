#include "evaluation/layer_alpha.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <numeric>

#include "base/error.h"

namespace skipper {
namespace {

constexpr std::array<std::string_view, 2> kBypassNames = {"zero", "identity"};

}  // namespace

std::string_view name_of(BypassOutput output) { return kBypassNames[static_cast<size_t>(output)]; }

BypassOutput parse_bypass_output(const std::string& text, const std::string& where) {
  const auto found = std::find(kBypassNames.begin(), kBypassNames.end(), text);
  if (found != kBypassNames.end()) return static_cast<BypassOutput>(found - kBypassNames.begin());
  throw InvalidRequest(where + ": '" + text + "' is neither zero nor identity", where);
}

OperatingPoint bypass_point(const BypassedLayer& bypassed, int num_moe_layers, BypassOutput output) {
  OperatingPoint point = unskipped_levels(num_moe_layers).levels.front();
  const auto c = static_cast<size_t>(bypassed.token_class);
  const auto layer = static_cast<size_t>(bypassed.moe_layer);
  if (output == BypassOutput::kIdentity) {
    point.identity_bypass[c].assign(static_cast<size_t>(num_moe_layers), 0);
    point.identity_bypass[c][layer] = 1;
    return point;
  }
  // Only a score of exactly 0 is under the smallest threshold; the other layers' alpha is over 0 as p is.
  const int num_others = std::max(num_moe_layers - 1, 1);
  point.alpha[c].assign(static_cast<size_t>(num_moe_layers), 1.0f / static_cast<float>(num_others));
  point.alpha[c][layer] = 0.0f;
  point.tau[c] = FLT_MIN;
  return point;
}

std::vector<double> normalized(std::vector<double> values) {
  const double sum = std::accumulate(values.begin(), values.end(), 0.0);
  for (double& value : values) value = sum > 0.0 ? value / sum : 1.0 / static_cast<double>(values.size());
  return values;
}

std::vector<float> effective_alpha(std::span<const double> losses, double exponent) {
  // Normalised first, so that no power of a tiny loss vanishes.
  std::vector<double> powers = normalized({losses.begin(), losses.end()});
  for (double& value : powers) value = std::pow(value, exponent);
  const std::vector<double> alpha = normalized(std::move(powers));
  return {alpha.begin(), alpha.end()};
}

OperatingPoint class_point(TokenClass token_class, const std::vector<float>& alpha, float tau) {
  OperatingPoint point = unskipped_levels(static_cast<int>(alpha.size())).levels.front();
  point.alpha[static_cast<size_t>(token_class)] = alpha;
  point.tau[static_cast<size_t>(token_class)] = tau;
  return point;
}

double kl_at(double skip_ratio, const MeasuredRatio& lower, const MeasuredRatio& upper) {
  const double distance = upper.skip_ratio - lower.skip_ratio;
  if (distance == 0.0) return 0.5 * (lower.kl + upper.kl);
  const double slope = (upper.kl - lower.kl) / distance;
  return std::max(0.0, lower.kl + slope * (skip_ratio - lower.skip_ratio));
}

}  // namespace skipper
