// Integer weight formats to test with, and a matrix read element by element by the layout that packed_matrix.h documents.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "kernels/packed_matrix.h"

namespace skipper {

inline const WeightFormat kIntegerFormats[] = {
    {WeightKind::kInt8, 32},           {WeightKind::kInt8, 128},           {WeightKind::kInt4, 32},
    {WeightKind::kInt4, 64},           {WeightKind::kInt4Asymmetric, 32},  {WeightKind::kInt4Asymmetric, 128},
    {WeightKind::kInt3Asymmetric, 32}, {WeightKind::kInt3Asymmetric, 64},  {WeightKind::kInt2Asymmetric, 32},
    {WeightKind::kInt2Asymmetric, 128}};

inline std::string name_of_integer_format(const testing::TestParamInfo<WeightFormat>& info) {
  std::string name = name_of(info.param);
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

inline int64_t inputs_per_chunk(const WeightFormat& format) {
  const int bits = format.bits_per_code();
  return bits == 3 ? 32 : 32 / bits;
}

inline int code_at(const PackedMatrix& packed, int64_t row, int64_t k) {
  const uint8_t* panel = packed.codes.row<uint8_t>(row / 16);
  const int bits = packed.format.bits_per_code();
  const auto byte_of = [&](int64_t vector) { return int{panel[vector * 64 + row % 16 * 4 + k % 4]}; };
  if (bits == 8) return byte_of(k / 4);
  if (bits == 4) return byte_of(k / 8) >> (k % 8 / 4 * 4) & 15;
  if (bits == 2) return byte_of(k / 16) >> (k % 16 / 4 * 2) & 3;
  const int low = byte_of(k / 32 * 3 + k % 32 / 16) >> (k % 16 / 4 * 2) & 3;
  return low | (byte_of(k / 32 * 3 + 2) >> (k % 32 / 4) & 1) << 2;
}

inline int64_t group_place(const PackedMatrix& packed, int64_t row, int64_t k) {
  return (row / 16 * packed.num_groups() + k / packed.format.group_size) * 16 + row % 16;
}

inline float scale_at(const PackedMatrix& packed, int64_t row, int64_t k) {
  return static_cast<float>(packed.scales.data<bf16>()[group_place(packed, row, k)]);
}

inline int zero_at(const PackedMatrix& packed, int64_t row, int64_t k) {
  if (!packed.format.is_asymmetric()) return 1 << (packed.format.bits_per_code() - 1);
  return packed.zeros.data<uint8_t>()[group_place(packed, row, k)];
}

}  // namespace skipper
