// The formats in which hidden rows travel to the experts.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "kernels/row_codes.h"
#include "tensor/dtype.h"

namespace skipper {

enum class PayloadFormat : uint8_t {
  kF32,
  kBF16,
  kInt8,  // 8-bit codes and an f32 scale per 128 channels: kernels/row_codes.h
  kFp8,   // the same with e4m3
};

std::string_view name_of(PayloadFormat format);  // "f32", "bf16", "int8", "fp8"
// Throws InvalidFile naming `where`, the text and all names.
PayloadFormat parse_payload_format(const std::string& text, const std::string& where);

constexpr bool is_coded(PayloadFormat format) { return format == PayloadFormat::kInt8 || format == PayloadFormat::kFp8; }
// Of a coded format.
constexpr RowCode row_code_of(PayloadFormat format) {
  return format == PayloadFormat::kInt8 ? RowCode::kInt8 : RowCode::kE4m3;
}

// What experts get. Codes times scales are f32, so that rounding to what the experts multiply is the experts' own.
constexpr DType received_dtype(PayloadFormat format) { return format == PayloadFormat::kBF16 ? DType::kBF16 : DType::kF32; }

// A row on the wire, its scales included: no token can do without them.
constexpr int64_t row_bytes(PayloadFormat format, int64_t hidden_size) {
  return is_coded(format) ? coded_row_bytes(hidden_size) : hidden_size * static_cast<int64_t>(size_of(received_dtype(format)));
}

}  // namespace skipper
