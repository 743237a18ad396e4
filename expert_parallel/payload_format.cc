#include "expert_parallel/payload_format.h"

#include <array>

#include "base/error.h"

namespace skipper {

namespace {

constexpr std::array kAll = {PayloadFormat::kF32, PayloadFormat::kBF16, PayloadFormat::kInt8, PayloadFormat::kFp8};

}  // namespace

std::string_view name_of(PayloadFormat format) {
  switch (format) {
    case PayloadFormat::kF32:
      return "f32";
    case PayloadFormat::kBF16:
      return "bf16";
    case PayloadFormat::kInt8:
      return "int8";
    case PayloadFormat::kFp8:
      return "fp8";
  }
  return "?";
}

PayloadFormat parse_payload_format(const std::string& text, const std::string& where) {
  std::string known;
  for (const PayloadFormat format : kAll) {
    if (name_of(format) == text) return format;
    known += (known.empty() ? "" : ", ") + std::string(name_of(format));
  }
  throw InvalidFile(where + ": '" + text + "' is not supported; use one of " + known);
}

}  // namespace skipper
