#include "model/weight_config.h"

#include <string>

#include "base/error.h"

namespace skipper {

void WeightConfig::validate() const {
  if (activation_dtype == DType::kBF16 || activation_dtype == DType::kF32) return;
  throw InvalidFile("weights.activation_dtype: " + std::string(name_of(activation_dtype)) + " is not supported; use bf16 or f32");
}

}  // namespace skipper
