#include "kernels/permute_tokens.h"

#include "tests/kernels/random_tensors.h"

namespace skipper {
namespace {

class PermuteTokensTest : public testing::TestWithParam<WeightType> {
 protected:
  Stream stream_;
};

TEST_P(PermuteTokensTest, GatherCopiesRowsAndScatterAddsThem) {
  const Tensor x = random_tensor({5, 19}, GetParam().dtype, 1);
  const std::vector<int32_t> rows = {4, 0, 0, 2};
  Tensor gathered = Tensor::empty({4, 19}, DType::kF32);
  gather_rows(x, index_tensor(rows), gathered, stream_);
  const std::vector<double> values = as_doubles(x);
  std::vector<double> expected, sums(6 * 19, 0.5);
  for (size_t r = 0; r < rows.size(); ++r) {
    for (size_t i = 0; i < 19; ++i) {
      expected.push_back(values[static_cast<size_t>(rows[r]) * 19 + i]);
      sums[static_cast<size_t>(rows[r]) * 19 + i] += values[r * 19 + i];
    }
  }
  expect_close(gathered, expected, 0);

  Tensor y = Tensor::empty({6, 19}, DType::kF32);
  for (float& value : y.span<float>()) value = 0.5f;
  scatter_add_rows(x.first(4), index_tensor(rows), y, stream_);
  expect_close(y, sums, 1e-6);
}

TEST_P(PermuteTokensTest, AcceptNoRows) {
  Tensor y = Tensor::empty({0, 19}, DType::kF32);
  const Tensor x = Tensor::empty({0, 19}, GetParam().dtype);
  gather_rows(x, index_tensor({}), y, stream_);
  scatter_add_rows(x, index_tensor({}), y, stream_);
}

INSTANTIATE_TEST_SUITE_P(Inputs, PermuteTokensTest, testing::ValuesIn(kWeightTypes), name_of_weight_type);

struct Output {
  DType dtype;
  double tolerance;
};

class WeightedRowSumTest : public testing::TestWithParam<Output> {
 protected:
  Stream stream_;
  const Tensor row_of_pair_ = index_tensor({3, 1, 0, 2, 1});
  const Tensor weights_ = random_tensor({5}, DType::kF32, 2);
  const Tensor pair_offsets_ = index_tensor({0, 2, 2, 5});
};

TEST_P(WeightedRowSumTest, AddsTheWeightedRowsOfEachToken) {
  for (const int64_t size : {1, 16, 37}) {
    const Tensor x = random_tensor({4, size}, DType::kF32, 3);
    Tensor y = Tensor::empty({3, size}, GetParam().dtype);
    weighted_row_sum({x, row_of_pair_, weights_, pair_offsets_}, y, stream_);
    std::vector<double> expected(static_cast<size_t>(3 * size));
    for (int64_t t = 0; t < 3; ++t) {
      for (int32_t p = pair_offsets_.data<int32_t>()[t]; p < pair_offsets_.data<int32_t>()[t + 1]; ++p) {
        const float* row = x.row<float>(row_of_pair_.data<int32_t>()[p]);
        for (int64_t i = 0; i < size; ++i) {
          expected[static_cast<size_t>(t * size + i)] += double{weights_.data<float>()[p]} * double{row[i]};
        }
      }
    }
    expect_close(y, expected, GetParam().tolerance);
    const std::vector<double> values = as_doubles(y);
    for (int64_t i = 0; i < size; ++i) EXPECT_EQ(values[static_cast<size_t>(size + i)], 0.0) << "a token without pairs";
  }
}

TEST_P(WeightedRowSumTest, TokenHasTheSameBitsAloneAndAmongOthers) {
  const Tensor x = random_tensor({4, 37}, DType::kF32, 4);
  Tensor all = Tensor::empty({3, 37}, GetParam().dtype), last = Tensor::empty({1, 37}, GetParam().dtype);
  weighted_row_sum({x, row_of_pair_, weights_, pair_offsets_}, all, stream_);
  weighted_row_sum({x, row_of_pair_, weights_, index_tensor({2, 5})}, last, stream_);
  EXPECT_TRUE(same_bits(last, all.slice(2, 3)));
}

TEST_P(WeightedRowSumTest, AcceptsNoTokens) {
  Tensor y = Tensor::empty({0, 37}, GetParam().dtype);
  weighted_row_sum({Tensor::empty({0, 37}, DType::kF32), index_tensor({}), Tensor::empty({0}, DType::kF32), index_tensor({0})},
                   y, stream_);
}

INSTANTIATE_TEST_SUITE_P(Outputs, WeightedRowSumTest, testing::Values(Output{DType::kF32, 1e-6}, Output{DType::kBF16, 4e-3}));

}  // namespace
}  // namespace skipper
