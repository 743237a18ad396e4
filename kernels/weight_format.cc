#include "kernels/weight_format.h"

#include <glog/logging.h>

#include <array>

#include "base/error.h"
#include "base/json_fields.h"

namespace skipper {
namespace {

constexpr std::array<int32_t, 3> kGroupSizes = {32, 64, 128};
constexpr std::array<WeightKind, 7> kKinds = {WeightKind::kF32,  WeightKind::kBF16,           WeightKind::kInt8,
                                              WeightKind::kInt4, WeightKind::kInt4Asymmetric, WeightKind::kInt3Asymmetric,
                                              WeightKind::kInt2Asymmetric};

std::string_view name_of(WeightKind kind) {
  switch (kind) {
    case WeightKind::kF32:
      return "f32";
    case WeightKind::kBF16:
      return "bf16";
    case WeightKind::kInt8:
      return "int8";
    case WeightKind::kInt4:
      return "int4";
    case WeightKind::kInt4Asymmetric:
      return "int4a";
    case WeightKind::kInt3Asymmetric:
      return "int3a";
    case WeightKind::kInt2Asymmetric:
      return "int2a";
  }
  return "?";
}

std::vector<WeightFormat> all_formats() {
  std::vector<WeightFormat> formats;
  for (const WeightKind kind : kKinds) {
    if (!WeightFormat{kind}.is_integer()) {
      formats.push_back({kind, 0});
      continue;
    }
    for (const int32_t group_size : kGroupSizes) formats.push_back({kind, group_size});
  }
  return formats;
}

}  // namespace

int WeightFormat::bits_per_code() const {
  switch (kind) {
    case WeightKind::kF32:
      return 32;
    case WeightKind::kBF16:
      return 16;
    case WeightKind::kInt8:
      return 8;
    case WeightKind::kInt4:
    case WeightKind::kInt4Asymmetric:
      return 4;
    case WeightKind::kInt3Asymmetric:
      return 3;
    case WeightKind::kInt2Asymmetric:
      return 2;
  }
  return 0;
}

double WeightFormat::bits_per_weight() const {
  if (!is_integer()) return bits_per_code();
  CHECK_GT(group_size, 0);
  constexpr int kScaleBits = 16, kZeroBits = 8;
  const int side_bits = kScaleBits + (is_asymmetric() ? kZeroBits : 0);
  return bits_per_code() + static_cast<double>(side_bits) / group_size;
}

std::string name_of(const WeightFormat& format) {
  const std::string kind(name_of(format.kind));
  return format.is_integer() ? kind + "-g" + std::to_string(format.group_size) : kind;
}

WeightFormat parse_weight_format(std::string_view text, const std::string& key) {
  for (const WeightFormat& format : all_formats()) {
    if (text == name_of(format)) return format;
  }
  const std::optional<std::string> nearest = nearest_name(std::string(text), weight_format_names());
  std::string message = key + ": unknown weight format '" + std::string(text) + "'; ";
  message += nearest ? "did you mean " + *nearest + "?" : "use f32, bf16, int8-gN, int4-gN, int4a-gN, int3a-gN or int2a-gN, "
                                                          "N = 32, 64 or 128";
  throw InvalidRequest(message, key);
}

std::vector<std::string> weight_format_names() {
  std::vector<std::string> names;
  for (const WeightFormat& format : all_formats()) names.push_back(name_of(format));
  return names;
}

}  // namespace skipper
