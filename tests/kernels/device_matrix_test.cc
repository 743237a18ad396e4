// The order of weights for tensor cores, written out from kernels/cuda/device_matrix.h; host code, so it needs no GPU.
#include "kernels/cuda/device_matrix.h"

#include <gmock/gmock.h>

#include <limits>

#include "base/error.h"
#include "tests/kernels/integer_formats.h"
#include "tests/kernels/random_tensors.h"

namespace skipper::cuda {
namespace {

const WeightFormat kBF16Format{WeightKind::kBF16, 0};
const WeightFormat kFormats[] = {kBF16Format,
                                 {WeightKind::kInt8, 32},
                                 {WeightKind::kInt8, 64},
                                 {WeightKind::kInt8, 128},
                                 {WeightKind::kInt4, 32},
                                 {WeightKind::kInt4, 64},
                                 {WeightKind::kInt4, 128}};
const MatrixShape kDeviceShapes[] = {{1, 1}, {64, 64}, {96, 256}, {256, 96}, {100, 72}, {61, 131}, {65, 33}};

using Bytes = std::vector<std::byte>;

// Memory in which a byte that nobody wrote shows.
Bytes poisoned_bytes(const WeightFormat& format, const MatrixShape& shape) {
  return Bytes(device_matrix_bytes(format, shape), std::byte{0xa5});
}

Bytes repacked(const PackedMatrix& packed) {
  Bytes bytes = poisoned_bytes(packed.format, {packed.num_rows, packed.num_columns});
  repack_device_matrix(packed, bytes);
  return bytes;
}

Bytes packed_for_gpu(const Tensor& w, const WeightFormat& format) {
  Bytes bytes = poisoned_bytes(format, {w.dim(0), w.dim(1)});
  pack_device_matrix(w, format, bytes);
  return bytes;
}

// Codes and scales that no quantiser would choose, padding included: what a checkpoint may hold.
PackedMatrix scrambled(const WeightFormat& format, const PackedShape& shape, uint32_t seed) {
  PackedMatrix packed = pack(random_tensor({shape.num_rows, shape.num_columns}, DType::kF32, seed), format);
  std::mt19937 generator(seed);
  if (format.is_integer()) {
    for (uint8_t& code : packed.codes.span<uint8_t>()) code = static_cast<uint8_t>(generator());
    for (bf16& scale : packed.scales.span<bf16>()) scale.bits ^= static_cast<uint16_t>(generator() % 128);
  }
  return packed;
}

uint64_t little_endian(const std::byte* bytes, int num_bytes) {
  uint64_t value = 0;
  for (int i = 0; i < num_bytes; ++i) value |= std::to_integer<uint64_t>(bytes[i]) << (8 * i);
  return value;
}

// The stored bits of a[i] of thread `t` in step `j` of a chunk.
int stored_bits(WeightKind kind, const std::byte* chunk, int t, int j, int i) {
  if (kind == WeightKind::kBF16) return static_cast<int>(little_endian(chunk + j * 2048 + t * 16 + 2 * i, 2));
  if (kind == WeightKind::kInt8) return std::to_integer<int>(chunk[j / 2 * 2048 + t * 16 + j % 2 * 8 + i]);
  constexpr int kNibbleOf[] = {0, 4, 1, 5, 2, 6, 3, 7};
  return static_cast<int>(little_endian(chunk + t * 16 + j * 4, 4) >> (4 * kNibbleOf[i]) & 15);
}

// The bits of a weight in the panels of a packed matrix, of zero when it is padding.
int expected_bits(const PackedMatrix& packed, int64_t row, int64_t k) {
  const bool is_padding = row >= packed.num_rows || k >= packed.num_columns;
  if (packed.format.is_integer()) return is_padding ? zero_at(packed, 0, 0) : code_at(packed, row, k);
  const auto* panel = reinterpret_cast<const bf16*>(packed.codes.row<uint8_t>(is_padding ? 0 : row / 16));
  return is_padding ? 0 : panel[(k / 2 * 16 + row % 16) * 2 + k % 2].bits;
}

int64_t chunk_bytes(const WeightFormat& format) {
  if (format.kind == WeightKind::kBF16) return 8192;
  return (format.kind == WeightKind::kInt8 ? 4096 : 2048) + (format.group_size == 32 ? 256 : 128);
}

// All chunks with the row and input at which each begins.
template <typename Check>
void for_each_chunk(const Bytes& bytes, const WeightFormat& format, const MatrixShape& shape, const Check& check) {
  const std::byte* chunk = bytes.data();
  for (int64_t row = 0; row < shape.num_rows; row += 64) {
    for (int64_t k = 0; k < shape.num_columns; k += 64) {
      check(chunk, row, k);
      chunk += chunk_bytes(format);
    }
  }
  EXPECT_EQ(chunk, bytes.data() + bytes.size());
}

class DeviceMatrixFormats : public testing::TestWithParam<WeightFormat> {};

TEST_P(DeviceMatrixFormats, EveryThreadFindsItsEightWeightsOfAStep) {
  for (const MatrixShape& shape : kDeviceShapes) {
    const PackedMatrix packed = scrambled(GetParam(), {shape.num_rows, shape.num_columns}, 1);
    for_each_chunk(repacked(packed), GetParam(), shape, [&](const std::byte* chunk, int64_t row, int64_t k) {
      for (int t = 0; t < 128; ++t) {
        const int64_t r0 = row + 16 * (t / 32) + t % 32 / 4, r1 = r0 + 8;
        for (int j = 0; j < 4; ++j) {
          const int64_t k0 = k + 16 * j + 2 * (t % 4);
          const std::pair<int64_t, int64_t> a[] = {{r0, k0},     {r0, k0 + 1}, {r1, k0},     {r1, k0 + 1},
                                                   {r0, k0 + 8}, {r0, k0 + 9}, {r1, k0 + 8}, {r1, k0 + 9}};
          for (int i = 0; i < 8; ++i) {
            ASSERT_EQ(stored_bits(GetParam().kind, chunk, t, j, i), expected_bits(packed, a[i].first, a[i].second))
                << shape.num_rows << " x " << shape.num_columns << ", thread " << t << ", step " << j << ", weight " << i;
          }
        }
      }
    });
  }
}

TEST_P(DeviceMatrixFormats, ScalesFollowTheCodesByGroupAndRow) {
  if (!GetParam().is_integer()) return;  // no scales: the test of sizes sees to it
  for (const MatrixShape& shape : kDeviceShapes) {
    const PackedMatrix packed = scrambled(GetParam(), {shape.num_rows, shape.num_columns}, 2);
    for_each_chunk(repacked(packed), GetParam(), shape, [&](const std::byte* chunk, int64_t row, int64_t k) {
      const std::byte* scales = chunk + (GetParam().kind == WeightKind::kInt8 ? 4096 : 2048);
      for (int group = 0; group < (GetParam().group_size == 32 ? 2 : 1); ++group) {
        for (int r = 0; r < 64; ++r) {
          const int64_t first_input = k + 32 * group;
          const bool is_padding = row + r >= shape.num_rows || first_input >= shape.num_columns;
          bf16 stored;
          stored.bits = static_cast<uint16_t>(little_endian(scales + (group * 64 + r) * 2, 2));
          ASSERT_EQ(static_cast<float>(stored), is_padding ? 0.0f : scale_at(packed, row + r, first_input))
              << shape.num_rows << " x " << shape.num_columns << ", group " << group << ", row " << row + r;
        }
      }
    });
  }
}

// In host memory; on a GPU in tests/kernels/cuda.
Tensor after_round_trip(const Bytes& bytes, const WeightFormat& format, const MatrixShape& shape) {
  Stream stream;
  DeviceMatrices matrices = empty_device_matrices(std::vector{format}, shape, Device::host());
  upload_matrix(bytes, 0, matrices, stream);
  return read_back(matrices, 0, stream);
}

TEST_P(DeviceMatrixFormats, ReadsBackWhatThePanelsStandFor) {
  for (const MatrixShape& shape : kDeviceShapes) {
    const Tensor w = random_tensor({shape.num_rows, shape.num_columns}, DType::kF32, 3);
    EXPECT_TRUE(same_bits(after_round_trip(packed_for_gpu(w, GetParam()), GetParam(), shape), unpack(pack(w, GetParam()))));
    const PackedMatrix packed = scrambled(GetParam(), {shape.num_rows, shape.num_columns}, 4);
    EXPECT_EQ(as_doubles(after_round_trip(repacked(packed), GetParam(), shape)), as_doubles(unpack(packed)));
  }
}

TEST_P(DeviceMatrixFormats, ReadsBackTheExpertsOfALargeModel) {
  const MatrixShape shape{1536, 2048};
  const PackedMatrix packed = scrambled(GetParam(), {shape.num_rows, shape.num_columns}, 5);
  EXPECT_TRUE(same_bits(after_round_trip(repacked(packed), GetParam(), shape), unpack(packed)));
}

// Rows in turn by eight: gate 0..7, up 0..7, gate 8..15, ...
Tensor taking_turns(const Tensor& gate, const Tensor& up) {
  Tensor rows = Tensor::empty({2 * gate.dim(0), gate.dim(1)}, DType::kF32);
  int64_t next = 0;
  for (int64_t begin = 0; begin < gate.dim(0); begin += 8) {
    for (const Tensor* w : {&gate, &up}) {
      for (int64_t row = begin; row < begin + 8; ++row) std::copy_n(w->row<float>(row), gate.dim(1), rows.row<float>(next++));
    }
  }
  return rows;
}

TEST_P(DeviceMatrixFormats, GateAndUpTakeTurnsByEight) {
  for (const auto& [rows, columns] : {std::pair{8, 64}, {24, 72}, {96, 256}, {40, 131}}) {
    const Tensor gate = random_tensor({rows, columns}, DType::kF32, 6), up = random_tensor({rows, columns}, DType::kF32, 7);
    Bytes bytes = poisoned_bytes(GetParam(), {2 * rows, columns});
    pack_device_gate_up(gate, up, GetParam(), bytes);
    EXPECT_EQ(bytes, packed_for_gpu(taking_turns(gate, up), GetParam())) << rows << " x " << columns;
  }
}

TEST_P(DeviceMatrixFormats, RepackingGateAndUpKeepsTheCodesOfACheckpoint) {
  for (const int64_t rows : {8, 40, 96}) {
    const int64_t padded_rows = (rows + 15) / 16 * 16, columns = 136;
    const PackedMatrix joined = scrambled(GetParam(), {2 * padded_rows, columns}, 8);
    Tensor gate = Tensor::empty({rows, columns}, DType::kF32), up = Tensor::empty({rows, columns}, DType::kF32);
    const Tensor panels = unpack(joined);
    for (int64_t row = 0; row < rows; ++row) {
      std::copy_n(panels.row<float>(row / 16 * 32 + row % 16), columns, gate.row<float>(row));
      std::copy_n(panels.row<float>(row / 16 * 32 + 16 + row % 16), columns, up.row<float>(row));
    }
    const MatrixShape shape{2 * rows, columns};
    Bytes bytes = poisoned_bytes(GetParam(), shape);
    repack_device_gate_up(joined, rows, bytes);
    EXPECT_EQ(as_doubles(after_round_trip(bytes, GetParam(), shape)), as_doubles(taking_turns(gate, up))) << rows;
  }
}

INSTANTIATE_TEST_SUITE_P(Each, DeviceMatrixFormats, testing::ValuesIn(kFormats), name_of_integer_format);

TEST(DeviceMatrix, BytesFollowTheTableOfFormats) {
  const auto bytes = [](const WeightFormat& format) { return device_matrix_bytes(format, {100, 129}); };  // 2 x 3 chunks
  EXPECT_EQ(bytes(kBF16Format), 6u * 8192);
  EXPECT_EQ(bytes({WeightKind::kInt8, 32}), 6u * (4096 + 256));
  EXPECT_EQ(bytes({WeightKind::kInt8, 64}), 6u * (4096 + 128));
  EXPECT_EQ(bytes({WeightKind::kInt8, 128}), 6u * (4096 + 128));
  EXPECT_EQ(bytes({WeightKind::kInt4, 32}), 6u * (2048 + 256));
  EXPECT_EQ(bytes({WeightKind::kInt4, 64}), 6u * (2048 + 128));
  EXPECT_EQ(bytes({WeightKind::kInt4, 128}), 6u * (2048 + 128));
}

TEST(DeviceMatrix, NothingTakesNoBytes) {
  for (const MatrixShape& shape : {MatrixShape{0, 64}, MatrixShape{64, 0}, MatrixShape{0, 0}}) {
    for (const WeightFormat& format : kFormats) {
      const Tensor w = Tensor::empty({shape.num_rows, shape.num_columns}, DType::kF32);
      EXPECT_TRUE(packed_for_gpu(w, format).empty()) << name_of(format);
      EXPECT_EQ(after_round_trip({}, format, shape).shape(), w.shape());
    }
  }
  EXPECT_EQ(empty_device_matrices({}, {64, 64}, Device::host()).num_bytes(), 0u);
}

TEST(DeviceMatrix, RefusesFormatsThatNoGpuMultiplies) {
  const Tensor w = random_tensor({64, 64}, DType::kF32, 9);
  for (const std::string& name : weight_format_names()) {
    const WeightFormat format = parse_weight_format(name, "");
    if (std::ranges::find(kFormats, format) != std::end(kFormats)) continue;
    const auto refusal = testing::ThrowsMessage<InvalidRequest>(
        testing::AllOf(testing::HasSubstr(name + " "), testing::HasSubstr("bf16, int8-gN or int4-gN")));
    EXPECT_THAT([&] { (void)device_matrix_bytes(format, {64, 64}); }, refusal);
    EXPECT_THAT([&] { pack_device_matrix(w, format, {}); }, refusal);
    EXPECT_THAT([&] { pack_device_gate_up(w, w, format, {}); }, refusal);
    EXPECT_THAT([&] { repack_device_matrix(pack(w, format), {}); }, refusal);
    EXPECT_THAT([&] { (void)empty_device_matrices(std::vector{format}, {64, 64}, Device::host()); }, refusal);
  }
}

TEST(DeviceMatrix, RefusesAWeightThatHasNoCode) {
  Tensor w = random_tensor({20, 64}, DType::kF32, 10);
  w.row<float>(17)[5] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THAT([&] { packed_for_gpu(w, {WeightKind::kInt4, 64}); },
              testing::ThrowsMessage<InvalidRequest>(testing::HasSubstr("row 17, column 5")));
}

TEST(DeviceMatrix, FloatWeightsAreRoundedToNearestEven) {
  const Tensor w = random_tensor({65, 40}, DType::kF32, 11);
  Tensor rounded = Tensor::empty(w.shape(), DType::kBF16);
  for (int64_t i = 0; i < w.num_elements(); ++i) rounded.data<bf16>()[i] = bf16(w.data<float>()[i]);
  EXPECT_EQ(packed_for_gpu(w, kBF16Format), packed_for_gpu(rounded, kBF16Format));
}

TEST(DeviceMatrix, MatricesOfSeveralFormatsLieInTurnAndTheTableSaysWhere) {
  const MatrixShape shape{100, 72};
  Stream stream;
  DeviceMatrices matrices = empty_device_matrices(kFormats, shape, Device::host());
  std::memset(matrices.memory.bytes(), 0xa5, matrices.memory.num_bytes());
  std::vector<PackedMatrix> packed;
  auto address = reinterpret_cast<int64_t>(matrices.memory.bytes());
  ASSERT_EQ(matrices.num_matrices(), static_cast<int>(std::size(kFormats)));
  for (int i = 0; i < matrices.num_matrices(); ++i) {
    const WeightFormat& format = kFormats[i];
    packed.push_back(scrambled(format, {shape.num_rows, shape.num_columns}, static_cast<uint32_t>(20 + i)));
    upload_matrix(repacked(packed.back()), i, matrices, stream);
    EXPECT_EQ(matrices.table.row<int64_t>(i)[0], address);
    EXPECT_EQ(matrices.table.row<int64_t>(i)[1], static_cast<int>(format.kind) + 256 * format.group_size);
    EXPECT_EQ(device_matrix_bytes(format, shape) % 128, 0u);
    address += static_cast<int64_t>(device_matrix_bytes(format, shape));
  }
  EXPECT_EQ(address, reinterpret_cast<int64_t>(matrices.memory.bytes()) + static_cast<int64_t>(matrices.num_bytes()));
  for (int i = 0; i < matrices.num_matrices(); ++i) {
    EXPECT_EQ(as_doubles(read_back(matrices, i, stream)), as_doubles(unpack(packed[static_cast<size_t>(i)]))) << i;
  }
}

TEST(DeviceMatrixDeathTest, RefusesHalvesThatCannotTakeTurnsByEight) {
  const Tensor w = random_tensor({12, 64}, DType::kF32, 12);
  Bytes bytes = poisoned_bytes(kBF16Format, {24, 64});
  EXPECT_DEATH(pack_device_gate_up(w, w, kBF16Format, bytes), "take turns by eight");
}

TEST(DeviceMatrixDeathTest, RefusesMemoryOfAnotherSize) {
  const Tensor w = random_tensor({12, 64}, DType::kF32, 13);
  Bytes bytes(8191);
  EXPECT_DEATH(pack_device_matrix(w, kBF16Format, bytes), "8191 vs. 8192");
}

}  // namespace
}  // namespace skipper::cuda
