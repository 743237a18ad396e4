#include "model/weight_config.h"

#include <string>

#include "base/error.h"

namespace skipper {

std::string_view name_of(WeightResidence residence) { return residence == WeightResidence::kMemory ? "memory" : "mapped"; }

WeightResidence parse_weight_residence(const std::string& text, const std::string& where) {
  for (const WeightResidence residence : {WeightResidence::kMemory, WeightResidence::kMapped}) {
    if (text == name_of(residence)) return residence;
  }
  throw InvalidFile(where + ": '" + text + "' is no place for weights; use memory or mapped");
}

void WeightConfig::validate() const {
  if (activation_dtype == DType::kBF16 || activation_dtype == DType::kF32) return;
  throw InvalidFile("weights.activation_dtype: " + std::string(name_of(activation_dtype)) + " is not supported; use bf16 or f32");
}

}  // namespace skipper
