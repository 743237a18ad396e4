#include "kernels/gemm.h"

#include "tests/kernels/random_tensors.h"

namespace skipper {
namespace {

struct MatrixShape {
  int64_t rows, columns, depth;
};

std::vector<double> product(const Tensor& x, const Tensor& w, const Tensor& bias) {
  const std::vector<double> a = as_doubles(x), b = as_doubles(w);
  const std::vector<double> offsets = bias.defined() ? as_doubles(bias) : std::vector<double>(static_cast<size_t>(w.dim(0)));
  std::vector<double> y;
  for (int64_t m = 0; m < x.dim(0); ++m) {
    for (int64_t n = 0; n < w.dim(0); ++n) {
      double sum = 0;
      for (int64_t k = 0; k < x.dim(1); ++k)
        sum += a[static_cast<size_t>(m * x.dim(1) + k)] * b[static_cast<size_t>(n * x.dim(1) + k)];
      y.push_back(sum + offsets[static_cast<size_t>(n)]);
    }
  }
  return y;
}

class GemmTest : public testing::TestWithParam<std::tuple<WeightType, MatrixShape>> {
 protected:
  Stream stream_;
};

TEST_P(GemmTest, EqualsTheSumOverDepth) {
  const auto& [type, shape] = GetParam();
  const Tensor x = random_tensor({shape.rows, shape.depth}, DType::kF32, 1);
  const Tensor w = random_tensor({shape.columns, shape.depth}, type.dtype, 2);
  for (const Tensor& bias :
       {Tensor(), random_tensor({shape.columns}, DType::kF32, 3), random_tensor({shape.columns}, DType::kBF16, 3)}) {
    Tensor y = Tensor::empty({shape.rows, shape.columns}, DType::kF32);
    gemm(x, {w, bias}, y, stream_);
    // The rounding of a sum grows with its terms: sqrt(depth) of size 1 each.
    expect_close(y, product(x, w, bias), type.tolerance * (1.0 + std::sqrt(static_cast<double>(shape.depth)) / 8));
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, GemmTest,
                         testing::Combine(testing::ValuesIn(kWeightTypes),
                                          testing::Values(MatrixShape{0, 5, 7}, MatrixShape{3, 0, 7}, MatrixShape{2, 3, 0},
                                                          MatrixShape{1, 1, 1}, MatrixShape{1, 4, 16}, MatrixShape{2, 5, 15},
                                                          MatrixShape{3, 7, 17}, MatrixShape{5, 6, 31}, MatrixShape{7, 13, 97},
                                                          MatrixShape{17, 19, 64}, MatrixShape{67, 9, 1031})));

class GemmBatch : public testing::TestWithParam<WeightType> {};

TEST_P(GemmBatch, RowHasTheSameBitsAloneAndAmongOthers) {
  Stream stream;
  for (const int64_t depth : {1, 15, 16, 29, 64, 131, 2053}) {
    const Tensor x = random_tensor({64, depth}, DType::kF32, 4);
    const Tensor w = random_tensor({11, depth}, GetParam().dtype, 5), bias = random_tensor({11}, GetParam().dtype, 6);
    Tensor alone = Tensor::empty({64, 11}, DType::kF32);
    for (int64_t row = 0; row < 64; ++row) {
      Tensor y = alone.slice(row, row + 1);
      gemm(x.slice(row, row + 1), {w, bias}, y, stream);
    }
    for (const int64_t rows : {1, 2, 3, 5, 8, 17, 64}) {
      Tensor y = Tensor::empty({rows, 11}, DType::kF32);
      gemm(x.first(rows), {w, bias}, y, stream);
      EXPECT_TRUE(same_bits(y, alone.first(rows))) << rows << " rows, depth " << depth;
    }
  }
}

TEST_P(GemmBatch, ColumnHasTheSameBitsInAnyTile) {
  Stream stream;
  const Tensor x = random_tensor({5, 45}, DType::kF32, 7), w = random_tensor({9, 45}, GetParam().dtype, 8);
  Tensor all = Tensor::empty({5, 9}, DType::kF32);
  gemm(x, {w, {}}, all, stream);
  for (int64_t column = 0; column < 9; ++column) {
    Tensor y = Tensor::empty({5, 1}, DType::kF32);
    gemm(x, {w.slice(column, column + 1), {}}, y, stream);
    for (int64_t row = 0; row < 5; ++row) EXPECT_EQ(y.row<float>(row)[0], all.row<float>(row)[column]);
  }
}

TEST_P(GemmBatch, NanOfOneRowStaysInItsRow) {
  Stream stream;
  Tensor x = random_tensor({5, 23}, DType::kF32, 9);
  x.row<float>(2)[22] = NAN;
  Tensor y = Tensor::empty({5, 6}, DType::kF32);
  gemm(x, {random_tensor({6, 23}, GetParam().dtype, 10), {}}, y, stream);
  for (int64_t i = 0; i < y.num_elements(); ++i) EXPECT_EQ(std::isnan(y.data<float>()[i]), i / 6 == 2) << i;
}

INSTANTIATE_TEST_SUITE_P(Weights, GemmBatch, testing::ValuesIn(kWeightTypes), name_of_weight_type);

TEST(GemmDeathTest, NamesTheShapesThatDoNotFit) {
  Stream stream;
  const Tensor x = Tensor::zeros({2, 3}, DType::kF32), w = Tensor::zeros({4, 5}, DType::kF32);
  Tensor y = Tensor::zeros({2, 4}, DType::kF32);
  EXPECT_DEATH(gemm(x, {w, {}}, y, stream), "x \\[2, 3\\] does not fit weight \\[4, 5\\]");
}

TEST(GemmDeathTest, RefusesGpuMemory) {
  Stream stream;
  const Tensor w = Tensor::zeros({4, 3}, DType::kF32);
  const Tensor x = Tensor::borrow_const(w.bytes(), {2, 3}, DType::kF32, Device::cuda(0));
  Tensor y = Tensor::zeros({2, 4}, DType::kF32);
  EXPECT_DEATH(gemm(x, {w, {}}, y, stream), "gemm: no CUDA kernel");
}

}  // namespace
}  // namespace skipper
