// From the loss that bypassed layers cause to alpha: how much the pairs of each layer and class matter.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "cluster/operating_point.h"
#include "cluster/token_class.h"

namespace skipper {

// What the experts of a bypassed layer return.
enum class BypassOutput : uint8_t {
  kZero,      // nothing
  kIdentity,  // their input, as the released MoDES code does
};

std::string_view name_of(BypassOutput output);  // "zero", "identity"
// Throws InvalidRequest naming the text.
BypassOutput parse_bypass_output(const std::string& text, const std::string& where);

// Exponents on alpha that calibration chooses from; 0 makes all layers alike.
inline constexpr std::array<double, 4> kAlphaExponents = {0.0, 0.25, 0.5, 1.0};

// All tokens of the class skip all experts of the layer, and nothing else is skipped.
struct BypassedLayer {
  TokenClass token_class = TokenClass::kText;
  int moe_layer = 0;
};
OperatingPoint bypass_point(const BypassedLayer& bypassed, int num_moe_layers, BypassOutput output);

// Divided by their sum; all equal when that is 0. Values not negative.
std::vector<double> normalized(std::vector<double> values);

// losses^exponent, normalised: effective alpha. 0^0 is 1.
std::vector<float> effective_alpha(std::span<const double> losses, double exponent);

// The pair rule on one class, the other untouched.
OperatingPoint class_point(TokenClass token_class, const std::vector<float>& alpha, float tau);

// KL at two skip ratios near the wanted ones, in ascending order of ratio.
struct MeasuredRatio {
  double skip_ratio = 0.0;
  double kl = 0.0;
};
// KL at `skip_ratio` on the line through both; not under 0. Their mean when both ratios are the same.
double kl_at(double skip_ratio, const MeasuredRatio& lower, const MeasuredRatio& upper);

}  // namespace skipper
