#include "expert_parallel/dispatch_config.h"

#include <string>

#include "base/error.h"

namespace skipper {

namespace {

void check_format(DType dtype, const std::string& key) {
  if (dtype == DType::kBF16 || dtype == DType::kF32) return;
  throw InvalidFile(key + ": " + std::string(name_of(dtype)) + " is not supported; use bf16 or f32");
}

}  // namespace

void DispatchConfig::validate() const {
  check_format(payload_dtype, "dispatch.payload_dtype");
  check_format(combine_dtype, "dispatch.combine_dtype");
}

}  // namespace skipper
