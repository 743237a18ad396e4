#include "expert_parallel/dispatch_config.h"

#include <string>

#include "base/error.h"

namespace skipper {

std::string_view name_of(PayloadTravel travel) { return travel == PayloadTravel::kOn ? "on" : "off"; }

PayloadTravel parse_payload_travel(const std::string& text, const std::string& where) {
  for (const PayloadTravel travel : {PayloadTravel::kOn, PayloadTravel::kOff}) {
    if (name_of(travel) == text) return travel;
  }
  throw InvalidFile(where + ": '" + text + "' is not supported; use on, or off to measure what else travels");
}

void DispatchConfig::validate() const {
  if (combine_dtype == DType::kBF16 || combine_dtype == DType::kF32) return;
  throw InvalidFile("dispatch.combine_dtype: " + std::string(name_of(combine_dtype)) + " is not supported; use bf16 or f32");
}

}  // namespace skipper
