#include "kernels/integer_packing.h"

#include <algorithm>
#include <limits>

#include "base/error.h"
#include "kernels/group_quantizer.h"
#include "tests/kernels/integer_formats.h"
#include "tests/kernels/random_tensors.h"

namespace skipper {
namespace {

struct MatrixShape {
  int64_t rows, columns;
};

// One and primes, one more and one less than chunks, groups and panels.
constexpr MatrixShape kPackedShapes[] = {{1, 1}, {3, 2}, {16, 7}, {17, 33}, {31, 64}, {33, 97}, {48, 131}, {5, 257}};

std::vector<float> row_group(const Tensor& w, int64_t row, int64_t begin, int64_t end) {
  const std::vector<double> values = as_doubles(w);
  const auto first = values.begin() + row * w.dim(1);
  return {first + begin, first + end};
}

class IntegerPacking : public testing::TestWithParam<WeightFormat> {};

TEST_P(IntegerPacking, PutsTheCodesOfEachGroupWhereTheLayoutSays) {
  const WeightFormat& format = GetParam();
  for (const auto& [rows, columns] : kPackedShapes) {
    SCOPED_TRACE(testing::Message() << rows << " x " << columns);
    const Tensor w = random_tensor({rows, columns}, DType::kBF16, 1);
    const PackedMatrix packed = pack(w, format);
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t begin = 0; begin < columns; begin += format.group_size) {
        const std::vector<float> weights = row_group(w, row, begin, std::min<int64_t>(columns, begin + format.group_size));
        std::vector<uint8_t> codes(weights.size());
        const GroupCodes group = quantize_group(weights, {}, format, codes);
        ASSERT_EQ(scale_at(packed, row, begin), static_cast<float>(group.scale));
        ASSERT_EQ(zero_at(packed, row, begin), group.zero);
        for (size_t i = 0; i < codes.size(); ++i) ASSERT_EQ(code_at(packed, row, begin + static_cast<int64_t>(i)), codes[i]);
      }
    }
  }
}

TEST_P(IntegerPacking, UnpacksToScaleTimesCodeLessZero) {
  for (const auto& [rows, columns] : kPackedShapes) {
    const PackedMatrix packed = pack(random_tensor({rows, columns}, DType::kF32, 2), GetParam());
    const Tensor unpacked = unpack(packed);
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t k = 0; k < columns; ++k) {
        const float expected = scale_at(packed, row, k) * static_cast<float>(code_at(packed, row, k) - zero_at(packed, row, k));
        ASSERT_EQ(unpacked.row<float>(row)[k], expected) << row << ',' << k;
      }
    }
  }
}

TEST_P(IntegerPacking, PadsWithZeros) {
  PackedMatrix packed = empty_packed(GetParam(), {.num_rows = 19, .num_columns = 37});
  for (Tensor* tensor : {&packed.codes, &packed.scales, &packed.zeros}) {
    if (tensor->defined()) std::memset(tensor->bytes(), 0xff, tensor->num_bytes());
  }
  pack_into(random_tensor({19, 37}, DType::kF32, 1), packed);
  for (int64_t row = 19; row < 32; ++row) {
    EXPECT_EQ(scale_at(packed, row, 0), 0.0f);
    for (int64_t k = 0; k < 37; ++k) EXPECT_EQ(code_at(packed, row, k), 0);
  }
  const int64_t per_chunk = inputs_per_chunk(GetParam()), padded_columns = (37 + per_chunk - 1) / per_chunk * per_chunk;
  for (int64_t row = 0; row < 32; ++row) {
    for (int64_t k = 37; k < padded_columns; ++k) EXPECT_EQ(code_at(packed, row, k), 0);
  }
}

TEST_P(IntegerPacking, GivesTheSameBytesForTheWholeAndForPanels) {
  const Tensor w = random_tensor({50, 131}, DType::kBF16, 3);
  const PackedMatrix whole = pack(w, GetParam());
  PackedMatrix in_parts = empty_packed(GetParam(), {.num_rows = 50, .num_columns = 131});
  for (const auto& [begin, end] : {std::pair{2, 4}, {0, 1}, {1, 2}}) {
    PackedMatrix part = in_parts.panels(begin, end);
    pack_integer_rows(w.slice(begin * kPanelRows, std::min<int64_t>(end * kPanelRows, 50)), part);
  }
  EXPECT_TRUE(same_bits(whole.codes, in_parts.codes));
  EXPECT_TRUE(same_bits(whole.scales, in_parts.scales));
  if (whole.zeros.defined()) {
    EXPECT_TRUE(same_bits(whole.zeros, in_parts.zeros));
  }
}

TEST_P(IntegerPacking, GivesTheSameBytesForBf16AndF32OfEqualValue) {
  const Tensor narrow = random_tensor({21, 67}, DType::kBF16, 4);
  Tensor wide = Tensor::empty({21, 67}, DType::kF32);
  for (int64_t i = 0; i < wide.num_elements(); ++i) wide.data<float>()[i] = static_cast<float>(narrow.data<bf16>()[i]);
  EXPECT_TRUE(same_bits(pack(narrow, GetParam()).codes, pack(wide, GetParam()).codes));
  EXPECT_TRUE(same_bits(pack(narrow, GetParam()).scales, pack(wide, GetParam()).scales));
}

TEST_P(IntegerPacking, WeighsEachInputByItsImportance) {
  const WeightFormat& format = GetParam();
  const Tensor w = random_tensor({18, 150}, DType::kF32, 5);
  std::vector<float> importance(150);
  for (size_t i = 0; i < importance.size(); ++i) importance[i] = static_cast<float>(i % 7) + 0.01f;
  PackedMatrix packed = empty_packed(format, {.num_rows = 18, .num_columns = 150});
  pack_integer_rows(w, importance, packed);
  for (int64_t begin = 0; begin < 150; begin += format.group_size) {
    const int64_t end = std::min<int64_t>(150, begin + format.group_size);
    std::vector<uint8_t> codes(static_cast<size_t>(end - begin));
    const auto group_importance = std::span(importance).subspan(static_cast<size_t>(begin), codes.size());
    quantize_group(row_group(w, 17, begin, end), group_importance, format, codes);
    for (int64_t k = begin; k < end; ++k) ASSERT_EQ(code_at(packed, 17, k), codes[static_cast<size_t>(k - begin)]);
  }
}

TEST_P(IntegerPacking, RefusesNanAndInfinityByRowAndColumn) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    Tensor w = random_tensor({20, 140}, DType::kF32, 6);
    w.row<float>(18)[133] = bad;
    try {
      pack(w, GetParam());
      FAIL() << "packed " << bad;
    } catch (const InvalidRequest& error) {
      EXPECT_NE(std::string(error.what()).find("row 18, column 133"), std::string::npos) << error.what();
    }
  }
}

TEST_P(IntegerPacking, PackingNothingGivesNothing) {
  EXPECT_EQ(pack(Tensor::empty({0, 7}, DType::kF32), GetParam()).num_bytes(), 0u);
  EXPECT_EQ(pack(Tensor::empty({7, 0}, DType::kF32), GetParam()).num_bytes(), 0u);
}

INSTANTIATE_TEST_SUITE_P(Formats, IntegerPacking, testing::ValuesIn(kIntegerFormats), name_of_integer_format);

}  // namespace
}  // namespace skipper
