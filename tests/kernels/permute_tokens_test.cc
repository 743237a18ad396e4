#include "kernels/permute_tokens.h"

#include "tests/kernels/random_tensors.h"

namespace skipper {
namespace {

class PermuteTokensTest : public testing::TestWithParam<WeightType> {
 protected:
  Stream stream_;
};

std::vector<int32_t> random_rows(int64_t count, int64_t num_rows) {
  std::mt19937 generator(7);
  std::vector<int32_t> rows;
  for (int64_t i = 0; i < count; ++i) rows.push_back(static_cast<int32_t>(generator() % static_cast<uint32_t>(num_rows)));
  return rows;
}

TEST_P(PermuteTokensTest, GatherCopiesRowsToBothElementTypes) {
  const Tensor x = random_tensor({5, 19}, GetParam().dtype, 1);
  const std::vector<int32_t> rows = {4, 0, 0, 2};
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    Tensor gathered = Tensor::empty({4, 19}, dtype);
    gather_rows(x, index_tensor(rows), gathered, stream_);
    const std::vector<double> values = as_doubles(x);
    std::vector<double> expected;
    for (const int32_t row : rows) {
      for (size_t i = 0; i < 19; ++i) {
        const double value = values[static_cast<size_t>(row) * 19 + i];
        expected.push_back(dtype == DType::kF32 ? value : double{static_cast<float>(bf16(static_cast<float>(value)))});
      }
    }
    expect_close(gathered, expected, 0);
  }
}

TEST(GatherRows, CopiesBytesOfAnyRowSize) {
  for (const int64_t size : {1, 7, 64, 261}) {
    Tensor x = Tensor::empty({3, size}, DType::kU8);
    for (int64_t i = 0; i < x.num_elements(); ++i) x.data<uint8_t>()[i] = static_cast<uint8_t>(i * 37);
    Tensor gathered = Tensor::empty({4, size}, DType::kU8);
    Stream stream;
    gather_rows(x, index_tensor({2, 0, 2, 1}), gathered, stream);
    for (const auto& [to, from] : {std::pair{0, 2}, {1, 0}, {2, 2}, {3, 1}}) {
      EXPECT_TRUE(same_bits(gathered.at(to), x.at(from))) << "row " << to << " of " << size << " bytes";
    }
  }
}

TEST_P(PermuteTokensTest, RowSumAddsTheListedRowsInTheirOrder) {
  for (const int64_t size : {1, 16, 37, 128, 391}) {
    const Tensor x = random_tensor({5, size}, GetParam().dtype, 1);
    const std::vector<int32_t> rows = {4, 0, 0, 2}, offsets = {0, 1, 1, 4};
    Tensor y = Tensor::empty({3, size}, DType::kF32);
    row_sum({x, index_tensor(rows), index_tensor(offsets)}, y, stream_);
    const std::vector<double> values = as_doubles(x);
    for (size_t t = 0; t < 3; ++t) {
      for (size_t i = 0; i < static_cast<size_t>(size); ++i) {
        float sum = 0.0f;
        for (int32_t r = offsets[t]; r < offsets[t + 1]; ++r) {
          sum += static_cast<float>(values[static_cast<size_t>(rows[static_cast<size_t>(r)] * size) + i]);
        }
        EXPECT_EQ(y.data<float>()[t * static_cast<size_t>(size) + i], sum) << "token " << t << ", column " << i << " of " << size;
      }
    }
  }
}

TEST_P(PermuteTokensTest, AcceptNoRows) {
  Tensor y = Tensor::empty({0, 19}, DType::kF32);
  const Tensor x = Tensor::empty({0, 19}, GetParam().dtype);
  gather_rows(x, index_tensor({}), y, stream_);
  row_sum({x, index_tensor({}), index_tensor({0})}, y, stream_);
  Tensor zeros = random_tensor({2, 19}, DType::kF32, 2);
  row_sum({x, index_tensor({}), index_tensor({0, 0, 0})}, zeros, stream_);
  expect_close(zeros, std::vector<double>(2 * 19), 0);
}

TEST_P(PermuteTokensTest, HaveTheSameBitsOnAnyNumberOfThreads) {
  const Tensor x = random_tensor({31, 391}, GetParam().dtype, 3);
  const std::vector<int32_t> rows = random_rows(2003, 31);
  std::vector<int32_t> offsets;
  for (int32_t end = 0; end <= 2003; end += 1 + end % 5) offsets.push_back(end);
  expect_same_bits_on_any_number_of_threads([&](Stream& stream) {
    Tensor y = Tensor::empty({2003, 391}, DType::kF32);
    gather_rows(x, index_tensor(rows), y, stream);
    return y;
  });
  expect_same_bits_on_any_number_of_threads([&](Stream& stream) {
    Tensor y = Tensor::empty({static_cast<int64_t>(offsets.size()) - 1, 391}, DType::kF32);
    row_sum({x, index_tensor(rows), index_tensor(offsets)}, y, stream);
    return y;
  });
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
  for (const int64_t size : {1, 16, 37, 128, 391}) {
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

TEST_P(WeightedRowSumTest, HasTheSameBitsOnAnyNumberOfThreads) {
  const Tensor x = random_tensor({1009, 131}, DType::kF32, 5), weights = random_tensor({1009}, DType::kF32, 6);
  const std::vector<int32_t> rows = random_rows(1009, 1009);
  std::vector<int32_t> offsets;
  for (int32_t end = 0; end <= 1009; end += 3) offsets.push_back(end);
  expect_same_bits_on_any_number_of_threads([&](Stream& stream) {
    Tensor y = Tensor::empty({static_cast<int64_t>(offsets.size()) - 1, 131}, GetParam().dtype);
    weighted_row_sum({x, index_tensor(rows), weights, index_tensor(offsets)}, y, stream);
    return y;
  });
}

INSTANTIATE_TEST_SUITE_P(Outputs, WeightedRowSumTest, testing::Values(Output{DType::kF32, 1e-6}, Output{DType::kBF16, 4e-3}));

}  // namespace
}  // namespace skipper
