#include "kernels/rope.h"

#include "tests/kernels/random_tensors.h"

namespace skipper {
namespace {

std::vector<double> rotated(const Tensor& x, const Tensor& angles) {
  std::vector<double> y = as_doubles(x);
  const int64_t num_heads = x.dim(1), half = angles.dim(1);
  for (int64_t t = 0; t < x.dim(0); ++t) {
    for (int64_t i = 0; i < half; ++i) {
      const double angle = angles.row<float>(t)[i];
      for (int64_t h = 0; h < num_heads; ++h) {
        double& low = y[static_cast<size_t>(((t * num_heads) + h) * 2 * half + i)];
        double& high = *(&low + half);
        const double a = low, b = high;
        low = a * std::cos(angle) - b * std::sin(angle);
        high = b * std::cos(angle) + a * std::sin(angle);
      }
    }
  }
  return y;
}

TEST(Rope, RotatesThePairsOfBothHalves) {
  Stream stream;
  for (const Shape& shape : {Shape{0, 2, 4}, Shape{1, 1, 2}, Shape{3, 2, 32}, Shape{5, 3, 38}, Shape{2, 4, 128}}) {
    Tensor x = random_tensor(shape, DType::kF32, 1);
    const Tensor angles = random_tensor({shape[0], shape[2] / 2}, DType::kF32, 2);
    const std::vector<double> expected = rotated(x, angles);
    rope(x, angles, stream);
    expect_close(x, expected, 1e-6);
  }
}

TEST(Rope, KeepsItsPrecisionAtLatePositions) {
  Stream stream;
  Tensor x = random_tensor({64, 1, 64}, DType::kF32, 3), angles = Tensor::empty({64, 32}, DType::kF32);
  for (int64_t i = 0; i < angles.num_elements(); ++i) {
    angles.data<float>()[i] = (i % 2 == 0 ? 1.0f : -1.0f) * static_cast<float>(i * i) * 0.2501f;  // up to 10^6 radians
  }
  const std::vector<double> expected = rotated(x, angles);
  rope(x, angles, stream);
  expect_close(x, expected, 1e-6);
}

TEST(Rope, RowHasTheSameBitsAloneAndAmongOthers) {
  Stream stream;
  Tensor x = random_tensor({7, 3, 38}, DType::kF32, 4), alone = random_tensor({7, 3, 38}, DType::kF32, 4);
  const Tensor angles = random_tensor({7, 19}, DType::kF32, 5);
  rope(x, angles, stream);
  for (int64_t t = 0; t < 7; ++t) {
    Tensor one = alone.slice(t, t + 1);
    rope(one, angles.slice(t, t + 1), stream);
  }
  EXPECT_TRUE(same_bits(x, alone));
}

TEST(Rope, RotatesHeadsWiderThanOneBlockOfAngles) {
  Stream stream;
  Tensor x = random_tensor({3, 2, 2 * 131}, DType::kF32, 6);
  const Tensor angles = random_tensor({3, 131}, DType::kF32, 7);
  const std::vector<double> expected = rotated(x, angles);
  rope(x, angles, stream);
  expect_close(x, expected, 1e-6);
}

TEST(Rope, HasTheSameBitsOnAnyNumberOfThreads) {
  const Tensor angles = random_tensor({301, 19}, DType::kF32, 8);
  expect_same_bits_on_any_number_of_threads([&](Stream& stream) {
    Tensor x = random_tensor({301, 7, 38}, DType::kF32, 9);
    rope(x, angles, stream);
    return x;
  });
}

}  // namespace
}  // namespace skipper
