#include "kernels/grouped_gemm.h"

#include "kernels/gemm.h"
#include "tests/kernels/random_tensors.h"

namespace skipper {
namespace {

class GroupedGemmTest : public testing::TestWithParam<WeightType> {
 protected:
  Stream stream_;
};

TEST_P(GroupedGemmTest, MultipliesEachRowByItsExpert) {
  const std::vector<int32_t> offsets = {0, 3, 3, 4, 11, 11};
  const int64_t depth = 37, columns = 13;
  const Tensor x = random_tensor({11, depth}, DType::kF32, 1), w = random_tensor({5, columns, depth}, GetParam().dtype, 2);
  Tensor y = Tensor::empty({11, columns}, DType::kF32);
  grouped_gemm(x, w, index_tensor(offsets), y, stream_);

  const std::vector<double> a = as_doubles(x), b = as_doubles(w);
  std::vector<double> expected;
  for (int64_t row = 0; row < 11; ++row) {
    int64_t expert = 0;
    while (row >= offsets[static_cast<size_t>(expert + 1)]) ++expert;
    for (int64_t n = 0; n < columns; ++n) {
      double sum = 0;
      for (int64_t k = 0; k < depth; ++k) {
        sum += a[static_cast<size_t>(row * depth + k)] * b[static_cast<size_t>((expert * columns + n) * depth + k)];
      }
      expected.push_back(sum);
    }
  }
  expect_close(y, expected, GetParam().tolerance);
}

TEST_P(GroupedGemmTest, RowHasTheSameBitsInAnyGroupSize) {
  const Tensor x = random_tensor({64, 131}, DType::kF32, 3), w = random_tensor({1, 7, 131}, GetParam().dtype, 4);
  Tensor alone = Tensor::empty({64, 7}, DType::kF32);
  for (int64_t row = 0; row < 64; ++row) {
    Tensor y = alone.slice(row, row + 1);
    grouped_gemm(x.slice(row, row + 1), w, index_tensor({0, 1}), y, stream_);
  }
  for (const int32_t rows : {1, 2, 3, 5, 8, 17, 64}) {
    Tensor y = Tensor::empty({rows, 7}, DType::kF32);
    grouped_gemm(x.first(rows), w, index_tensor({0, rows}), y, stream_);
    EXPECT_TRUE(same_bits(y, alone.first(rows))) << rows;
  }
}

TEST_P(GroupedGemmTest, LeavesRowsBeyondTheLastOffsetAlone) {
  const Tensor x = random_tensor({4, 5}, DType::kF32, 5), w = random_tensor({2, 3, 5}, GetParam().dtype, 6);
  Tensor y = Tensor::zeros({4, 3}, DType::kF32);
  grouped_gemm(x, w, index_tensor({0, 1, 2}), y, stream_);
  EXPECT_NE(y.row<float>(1)[0], 0.0f);
  for (int64_t i = 6; i < 12; ++i) EXPECT_EQ(y.data<float>()[i], 0.0f);
}

TEST_P(GroupedGemmTest, AcceptsNoRowsAndNoExperts) {
  Tensor y = Tensor::empty({0, 3}, DType::kF32);
  const Tensor x = Tensor::empty({0, 5}, DType::kF32);
  grouped_gemm(x, random_tensor({2, 3, 5}, GetParam().dtype, 7), index_tensor({0, 0, 0}), y, stream_);
  grouped_gemm(x, Tensor::empty({0, 3, 5}, GetParam().dtype), index_tensor({0}), y, stream_);
}

INSTANTIATE_TEST_SUITE_P(Weights, GroupedGemmTest, testing::ValuesIn(kWeightTypes), name_of_weight_type);

}  // namespace
}  // namespace skipper
