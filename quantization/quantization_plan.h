// Which tensors of a checkpoint are packed, how and in which order, and which are copied.
#pragma once

#include <string>
#include <vector>

#include "model/model_config.h"
#include "quantization/activation_statistics.h"
#include "quantization/matrix_source.h"
#include "tensor/safetensors.h"
#include "tensor/safetensors_writer.h"

namespace skipper {

enum class WeightClass : uint8_t { kExperts, kDense };

struct PlannedMatrix {
  WeightClass weight_class = WeightClass::kExperts;
  InputKey input;  // whose rows the matrix multiplies
  MatrixSource source;
};

struct QuantizationPlan {
  // In groups that are worked on together and whose mapped pages are let go together: a layer, the head.
  std::vector<std::vector<PlannedMatrix>> groups;
  std::vector<std::string> copies;  // names of tensors that stay as they are
};

// Both checkpoint layouts of the experts; `config` is the original's. Throws InvalidFile naming a tensor that is missing, of
// another shape or type, or that has the name of a packed one.
QuantizationPlan plan_quantization(const Checkpoint& checkpoint, const ModelConfig& config, const QuantizedFormats& formats);

// Every tensor of the output, layer by layer.
std::vector<TensorPlan> tensors_of(const QuantizationPlan& plan, const Checkpoint& checkpoint);

}  // namespace skipper
