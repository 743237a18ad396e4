#include "kernels/rms_norm.h"

#include "kernels/elementwise.h"
#include "tests/kernels/random_tensors.h"

namespace skipper {
namespace {

std::vector<double> rms_normalized(const Tensor& x, const Tensor& weight, double epsilon) {
  const std::vector<double> values = as_doubles(x), w = as_doubles(weight);
  std::vector<double> y(values.size());
  for (size_t begin = 0; begin < values.size(); begin += w.size()) {
    double squares = 0;
    for (size_t i = 0; i < w.size(); ++i) squares += values[begin + i] * values[begin + i];
    const double scale = 1 / std::sqrt(squares / static_cast<double>(w.size()) + epsilon);
    for (size_t i = 0; i < w.size(); ++i) y[begin + i] = values[begin + i] * scale * w[i];
  }
  return y;
}

class RmsNormTest : public testing::TestWithParam<WeightType> {
 protected:
  Stream stream_;
};

TEST_P(RmsNormTest, DividesByTheRootOfTheMeanSquare) {
  for (const Shape& shape : {Shape{0, 5}, Shape{1, 1}, Shape{3, 16}, Shape{2, 17}, Shape{2, 3, 64}, Shape{5, 131}}) {
    const int64_t size = shape[shape.rank() - 1];
    const Tensor x = random_tensor(shape, DType::kF32, 1), weight = random_tensor({size}, GetParam().dtype, 2);
    Tensor y = Tensor::empty(shape, DType::kF32);
    rms_norm(x, weight, 1e-3f, y, stream_);
    expect_close(y, rms_normalized(x, weight, 1e-3f), GetParam().tolerance);
  }
}

TEST_P(RmsNormTest, WorksInPlaceWithTheSameBits) {
  Tensor x = random_tensor({4, 37}, DType::kF32, 3);
  const Tensor weight = random_tensor({37}, GetParam().dtype, 4);
  Tensor y = Tensor::empty({4, 37}, DType::kF32);
  rms_norm(x, weight, 1e-6f, y, stream_);
  rms_norm(x, weight, 1e-6f, x, stream_);
  EXPECT_TRUE(same_bits(x, y));
}

TEST_P(RmsNormTest, RowHasTheSameBitsAloneAndAmongOthers) {
  const Tensor x = random_tensor({17, 53}, DType::kF32, 5), weight = random_tensor({53}, GetParam().dtype, 6);
  Tensor all = Tensor::empty({17, 53}, DType::kF32), one = Tensor::empty({1, 53}, DType::kF32);
  rms_norm(x, weight, 1e-6f, all, stream_);
  for (int64_t row = 0; row < 17; ++row) {
    rms_norm(x.slice(row, row + 1), weight, 1e-6f, one, stream_);
    EXPECT_TRUE(same_bits(one, all.slice(row, row + 1)));
  }
}

TEST_P(RmsNormTest, HasTheSameBitsOnAnyNumberOfThreads) {
  const Tensor x = random_tensor({701, 131}, DType::kF32, 7), weight = random_tensor({131}, GetParam().dtype, 8);
  expect_same_bits_on_any_number_of_threads([&](Stream& stream) {
    Tensor y = Tensor::empty(x.shape(), DType::kF32);
    rms_norm(x, weight, 1e-6f, y, stream);
    return y;
  });
}

TEST_P(RmsNormTest, AddsAndNormalizesWithTheBitsOfBothKernels) {
  for (const Shape& shape : {Shape{0, 5}, Shape{1, 1}, Shape{3, 16}, Shape{2, 3, 17}, Shape{701, 131}}) {
    const Tensor x = random_tensor(shape, DType::kF32, 9);
    const Tensor weight = random_tensor({shape[shape.rank() - 1]}, GetParam().dtype, 10);
    Tensor expected_hidden = random_tensor(shape, DType::kF32, 11), expected = Tensor::empty(shape, DType::kF32);
    add(x, expected_hidden, stream_);
    rms_norm(expected_hidden, weight, 1e-5f, expected, stream_);
    for (const int num_threads : {1, 2, 3}) {
      ThreadPool workers(num_threads);
      Stream stream(workers);
      Tensor hidden = random_tensor(shape, DType::kF32, 11), normed = Tensor::empty(shape, DType::kF32);
      add_rms_norm(x, {weight, 1e-5f}, hidden, normed, stream);
      EXPECT_TRUE(same_bits(hidden, expected_hidden)) << shape.to_string() << ", " << num_threads << " threads";
      EXPECT_TRUE(same_bits(normed, expected)) << shape.to_string() << ", " << num_threads << " threads";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Weights, RmsNormTest, testing::ValuesIn(kWeightTypes), name_of_weight_type);

}  // namespace
}  // namespace skipper
