// The settings that say in which formats weights rest and meet activations.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "kernels/weight_format.h"
#include "tensor/dtype.h"

namespace skipper {

// Where the matrices of a quantised checkpoint rest. In memory of each rank's own, in huge pages: decode is fastest. Mapped:
// in place in the files' pages, which the system holds once for all ranks and keeps from one start to the next.
enum class WeightResidence : uint8_t { kMemory, kMapped };

std::string_view name_of(WeightResidence residence);  // "memory", "mapped"
// Throws InvalidFile naming `where` and the text.
WeightResidence parse_weight_residence(const std::string& text, const std::string& where);

struct WeightConfig {
  std::optional<WeightFormat> experts = {};  // absent: as in the checkpoint, floats as BF16
  std::optional<WeightFormat> dense = {};    // attention projections, dense feed-forward, head; absent: as in the checkpoint
  // What activations are rounded to before they meet BF16 weights: bf16 or f32 (left alone). Integer weights meet 8-bit codes.
  DType activation_dtype = DType::kBF16;
  WeightResidence residence = WeightResidence::kMemory;  // kMapped: of quantised checkpoints alone

  // Throws InvalidFile naming the key ("weights.activation_dtype").
  void validate() const;
};

}  // namespace skipper
