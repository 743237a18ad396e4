#include "expert_parallel/dispatch_config.h"

#include <string>

#include "base/error.h"

namespace skipper {

void DispatchConfig::validate() const {
  if (combine_dtype == DType::kBF16 || combine_dtype == DType::kF32) return;
  throw InvalidFile("dispatch.combine_dtype: " + std::string(name_of(combine_dtype)) + " is not supported; use bf16 or f32");
}

}  // namespace skipper
