// Formats in which hidden rows travel between ranks.
#pragma once

#include "expert_parallel/payload_format.h"
#include "tensor/dtype.h"

namespace skipper {

// Rows that stay on their rank are rounded through the same formats, so that results do not depend on who owns what.
struct DispatchConfig {
  PayloadFormat payload_format = PayloadFormat::kBF16;  // "payload_dtype": hidden rows on their way to the experts
  DType combine_dtype = DType::kBF16;                   // partial sums on their way back: bf16 or f32

  // Throws InvalidFile naming the key ("dispatch.combine_dtype").
  void validate() const;
};

}  // namespace skipper
