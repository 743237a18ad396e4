// What rounding does to the outputs of experts, over rows that they met.
#pragma once

#include <span>
#include <vector>

#include "evaluation/expert_samples.h"
#include "kernels/weight_format.h"
#include "model/weight_loader.h"
#include "tensor/device_runtime.h"

namespace skipper {

// Means over an expert's rows x with gates g; 0 for an expert without rows.
struct ExpertErrors {
  std::vector<double> error;  // [formats]: g² · ‖E_f(x) − E(x)‖²
  double output = 0.0;        // g² · ‖E(x)‖²
};

// Of the experts of one layer, in their order. E is the expert as the checkpoint has it, in BF16; E_f includes what the format
// does to activations. Loads the layer once for each format.
std::vector<ExpertErrors> measure_expert_errors(const WeightSource& source, int moe_layer, const ExpertSamples& samples,
                                                std::span<const WeightFormat> formats, Stream& stream);

}  // namespace skipper
