// A profile without measurements: what the formats' arithmetic and the shape of the model say alone.
#pragma once

#include <span>
#include <vector>

#include "model/model_config.h"
#include "planning/precision_profile.h"

namespace skipper {

// Every expert is met by top_k / num_experts of the tokens, and rounding it to a format changes its output by the variance of the
// rounding of normally distributed weights. So experts differ in nothing, losses are relative, and what a budget cannot raise
// for all is raised for the layers that come first, whose errors all later ones see.
PrecisionProfile analytic_profile(const ModelConfig& model, std::span<const WeightFormat> formats);

// Those that a plan without measurements chooses from: one or two of each width.
std::vector<WeightFormat> analytic_formats();

// Variance of rounding a weight of variance 1 to the format.
double rounding_variance(const WeightFormat& format);

}  // namespace skipper
