#include "kernels/packed_matrix.h"

#include "tests/kernels/random_tensors.h"

namespace skipper {
namespace {

constexpr WeightFormat kF32{WeightKind::kF32, 0}, kBF16{WeightKind::kBF16, 0};

// Where the layout documented in packed_matrix.h puts input `k` of output `row`.
float element(const PackedMatrix& packed, int64_t row, int64_t k) {
  const uint8_t* panel = packed.codes.row<uint8_t>(row / 16);
  if (packed.format.kind == WeightKind::kF32) return reinterpret_cast<const float*>(panel)[k * 16 + row % 16];
  return static_cast<float>(reinterpret_cast<const bf16*>(panel)[(k / 2 * 16 + row % 16) * 2 + k % 2]);
}

TEST(PackedMatrix, PutsFloatsWhereTheLayoutSays) {
  for (const auto& [rows, columns] : {std::pair{1, 1}, {3, 2}, {16, 7}, {17, 33}, {31, 16}, {48, 131}}) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      const Tensor w = random_tensor({rows, columns}, dtype, 1);
      const std::vector<double> values = as_doubles(w);
      for (const WeightFormat& format : {kF32, kBF16}) {
        const PackedMatrix packed = pack(w, format);
        ASSERT_EQ(packed.num_panels(), (rows + 15) / 16);
        for (int64_t row = 0; row < rows; ++row) {
          for (int64_t k = 0; k < columns; ++k) {
            const auto value = static_cast<float>(values[static_cast<size_t>(row * columns + k)]);
            const float expected = format == kF32 ? value : static_cast<float>(bf16(value));
            ASSERT_EQ(element(packed, row, k), expected) << name_of(format) << ' ' << row << ',' << k;
          }
        }
      }
    }
  }
}

TEST(PackedMatrix, PadsWithZeros) {
  for (const WeightFormat& format : {kF32, kBF16}) {
    PackedMatrix packed = empty_packed(format, {.num_rows = 19, .num_columns = 5});
    std::memset(packed.codes.bytes(), 0xff, packed.codes.num_bytes());
    pack_into(random_tensor({19, 5}, DType::kF32, 1), packed);
    for (int64_t row = 19; row < 32; ++row) {
      for (int64_t k = 0; k < 5; ++k) EXPECT_EQ(element(packed, row, k), 0.0f);
    }
    if (format == kBF16) {
      for (int64_t row = 0; row < 32; ++row) EXPECT_EQ(element(packed, row, 5), 0.0f) << row;
    }
  }
}

TEST(PackedMatrix, UnpacksWhatWasPacked) {
  for (const auto& [rows, columns] : {std::pair{1, 1}, {5, 3}, {16, 16}, {37, 29}}) {
    const Tensor w = random_tensor({rows, columns}, DType::kBF16, 2);
    for (const WeightFormat& format : {kF32, kBF16}) EXPECT_EQ(as_doubles(unpack(pack(w, format))), as_doubles(w));
  }
}

TEST(PackedMatrix, PackingNothingGivesNothing) {
  for (const WeightFormat& format : {kF32, kBF16}) {
    EXPECT_EQ(pack(Tensor::empty({0, 7}, DType::kF32), format).num_bytes(), 0u);
    const PackedMatrix without_inputs = pack(Tensor::empty({20, 0}, DType::kF32), format);
    EXPECT_EQ(without_inputs.num_panels(), 2);
    EXPECT_EQ(without_inputs.num_bytes(), 0u);
  }
}

TEST(PackedMatrix, SizesFollowTheTableOfChunks) {
  const auto bytes = [](WeightKind kind, int64_t columns) { return panel_bytes({kind, 32}, columns); };
  EXPECT_EQ(bytes(WeightKind::kF32, 3), 3 * 64);
  EXPECT_EQ(bytes(WeightKind::kBF16, 3), 2 * 64);
  EXPECT_EQ(bytes(WeightKind::kInt8, 5), 2 * 64);
  EXPECT_EQ(bytes(WeightKind::kInt4, 9), 2 * 64);
  EXPECT_EQ(bytes(WeightKind::kInt4Asymmetric, 8), 64);
  EXPECT_EQ(bytes(WeightKind::kInt3Asymmetric, 33), 2 * 192);
  EXPECT_EQ(bytes(WeightKind::kInt2Asymmetric, 17), 2 * 64);
  // Two panels: codes, one scale of two bytes and one zero point for each of the two groups of each row.
  EXPECT_EQ(packed_bytes({WeightKind::kInt4Asymmetric, 32}, {17, 40}), 2u * (5 * 64 + 2 * 16 * 2 + 2 * 16));
  EXPECT_EQ(packed_bytes({WeightKind::kInt8, 64}, {16, 64}), 16u * 64 + 16 * 2);
}

TEST(PackedMatrix, EmptyAndBorrowedMatricesHaveTheirTensors) {
  const PackedShape shape{.num_rows = 20, .num_columns = 70};
  for (const std::string& name : weight_format_names()) {
    const WeightFormat format = parse_weight_format(name, "");
    const PackedMatrix owned = empty_packed(format, shape);
    EXPECT_EQ(owned.num_bytes(), packed_bytes(format, shape)) << name;
    EXPECT_EQ(owned.activations, format.is_integer() ? ActivationFormat::kInt8 : ActivationFormat::kBF16);
    EXPECT_EQ(owned.num_groups(), format.is_integer() ? (70 + format.group_size - 1) / format.group_size : 0) << name;
    EXPECT_EQ(owned.zeros.defined(), format.is_asymmetric()) << name;
    Tensor memory = Tensor::empty({static_cast<int64_t>(packed_bytes(format, shape))}, DType::kU8);
    const PackedMatrix borrowed = borrow_packed(format, shape, memory.bytes());
    EXPECT_EQ(borrowed.codes.shape(), owned.codes.shape());
    const Tensor& side_data = borrowed.zeros.defined() ? borrowed.zeros : borrowed.scales;
    const Tensor& last = side_data.defined() ? side_data : borrowed.codes;
    EXPECT_EQ(last.bytes() + last.num_bytes(), memory.bytes() + memory.num_bytes()) << name;
  }
}

TEST(PackedMatrix, PanelsShareMemoryAndCountTheirRows) {
  const PackedMatrix packed = pack(random_tensor({37, 6}, DType::kF32, 3), kBF16);
  const PackedMatrix last = packed.panels(1, 3);
  EXPECT_EQ(last.num_rows, 21);
  EXPECT_EQ(last.codes.data<uint8_t>(), packed.codes.row<uint8_t>(1));
  EXPECT_EQ(packed.panels(0, 2).num_rows, 32);
  EXPECT_EQ(packed.panels(3, 3).num_rows, 0);
}

TEST(PackedMatrix, GateAndUpTakeTurns) {
  const Tensor gate = random_tensor({21, 9}, DType::kBF16, 4), up = random_tensor({21, 9}, DType::kBF16, 5);
  PackedMatrix packed = empty_packed(kBF16, {.num_rows = 64, .num_columns = 9});
  pack_gate_up(gate, up, packed);
  for (int64_t row = 0; row < 32; ++row) {
    for (int64_t k = 0; k < 9; ++k) {
      const int64_t place = row / 16 * 32 + row % 16;
      ASSERT_EQ(element(packed, place, k), row < 21 ? static_cast<float>(gate.row<bf16>(row)[k]) : 0.0f);
      ASSERT_EQ(element(packed, place + 16, k), row < 21 ? static_cast<float>(up.row<bf16>(row)[k]) : 0.0f);
    }
  }
}

TEST(PackedMatrixDeathTest, RefusesAWeightOfAnotherShape) {
  PackedMatrix packed = empty_packed(kBF16, {.num_rows = 4, .num_columns = 5});
  EXPECT_DEATH(pack_into(Tensor::zeros({4, 6}, DType::kF32), packed), "weight \\[4, 6\\] into a matrix of 4 rows and 5 columns");
}

}  // namespace
}  // namespace skipper
