#include "expert_parallel/dispatch_config.h"

#include <string>

#include "base/error.h"

namespace skipper {

namespace {

void check_format(DType dtype, const std::string& key) {
  if (dtype == DType::kBF16 || dtype == DType::kF32) return;
  throw InvalidRequest(key + " is \"" + std::string(name_of(dtype)) + "\"; choose \"bf16\" or \"f32\"", key);
}

}  // namespace

void DispatchConfig::validate() const {
  check_format(payload_dtype, "expert_parallel.payload_dtype");
  check_format(combine_dtype, "expert_parallel.combine_dtype");
}

}  // namespace skipper
