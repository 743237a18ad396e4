// How a weight matrix is stored: the names of formats, their sizes, and the activations each is multiplied with.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace skipper {

enum class WeightKind : uint8_t { kF32, kBF16, kInt8, kInt4, kInt4Asymmetric, kInt3Asymmetric, kInt2Asymmetric };

// Integer kinds hold one code per weight and, for each group of `group_size` consecutive inputs of an output row, one scale
// and one zero point: weight = scale · (code − zero). Symmetric kinds have the constant zero point 2^(bits − 1).
struct WeightFormat {
  WeightKind kind = WeightKind::kBF16;
  int32_t group_size = 0;  // 32, 64 or 128; 0 for floats

  bool is_integer() const { return kind != WeightKind::kF32 && kind != WeightKind::kBF16; }
  bool is_asymmetric() const {
    return kind == WeightKind::kInt4Asymmetric || kind == WeightKind::kInt3Asymmetric || kind == WeightKind::kInt2Asymmetric;
  }
  int bits_per_code() const;
  // Scales, and zero points where they are stored, included.
  double bits_per_weight() const;
  friend bool operator==(const WeightFormat&, const WeightFormat&) = default;
};

// "f32", "bf16", "int8-g64", "int4-g32", "int4a-g32", "int3a-g64", "int2a-g32".
std::string name_of(const WeightFormat& format);
// Throws InvalidRequest naming the text and the nearest known name; `key` says where it stood ("--experts").
WeightFormat parse_weight_format(std::string_view text, const std::string& key);
// All formats that can be asked for by name.
std::vector<std::string> weight_format_names();

// What a row of activations becomes before it meets a matrix.
enum class ActivationFormat : uint8_t {
  kF32,   // left alone; for float weights
  kBF16,  // rounded to BF16; for float weights
  kInt8,  // codes of 8 bits and one scale per group of the weight format; for integer weights
};

}  // namespace skipper
