#include "kernels/gelu.h"

#include "tests/kernels/random_tensors.h"

namespace skipper {
namespace {

double gelu_of(double x, GeluForm form) {
  if (form == GeluForm::kErf) return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
  return 0.5 * x * (1 + std::tanh(std::sqrt(2.0 / std::acos(-1.0)) * (x + 0.044715 * x * x * x)));
}

class GeluTest : public testing::TestWithParam<GeluForm> {
 protected:
  Stream stream_;
};

TEST_P(GeluTest, EqualsItsDefinition) {
  for (const Shape& shape : {Shape{0, 5}, Shape{3, 0}, Shape{1}, Shape{3, 16}, Shape{2, 19}, Shape{2, 3, 97}}) {
    Tensor x = random_tensor(shape, DType::kF32, 1);
    for (float& value : x.span<float>()) value *= 3.0f;
    std::vector<double> expected = as_doubles(x);
    for (double& value : expected) value = gelu_of(value, GetParam());
    gelu(x, GetParam(), stream_);
    expect_close(x, expected, 1e-6);
  }
}

TEST_P(GeluTest, SaturatesFarFromZero) {
  Tensor x = Tensor::zeros({2}, DType::kF32);
  x.data<float>()[0] = 50.0f;
  x.data<float>()[1] = -50.0f;
  gelu(x, GetParam(), stream_);
  EXPECT_EQ(x.data<float>()[0], 50.0f);
  EXPECT_EQ(x.data<float>()[1], 0.0f);
}

TEST_P(GeluTest, RowHasTheSameBitsAloneAndAmongOthers) {
  Tensor x = random_tensor({9, 21}, DType::kF32, 2), alone = random_tensor({9, 21}, DType::kF32, 2);
  gelu(x, GetParam(), stream_);
  for (int64_t row = 0; row < 9; ++row) {
    Tensor one = alone.slice(row, row + 1);
    gelu(one, GetParam(), stream_);
  }
  EXPECT_TRUE(same_bits(x, alone));
}

TEST_P(GeluTest, HasTheSameBitsOnAnyNumberOfThreads) {
  expect_same_bits_on_any_number_of_threads([&](Stream& stream) {
    Tensor x = random_tensor({307, 131}, DType::kF32, 3);
    gelu(x, GetParam(), stream);
    return x;
  });
}

INSTANTIATE_TEST_SUITE_P(Forms, GeluTest, testing::Values(GeluForm::kErf, GeluForm::kTanh));

}  // namespace
}  // namespace skipper
