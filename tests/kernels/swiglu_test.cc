#include "kernels/swiglu.h"

#include "tests/kernels/random_tensors.h"

namespace skipper {
namespace {

TEST(Swiglu, GatesTheSecondHalfWithTheFirst) {
  Stream stream;
  for (const Shape& shape : {Shape{0, 5}, Shape{1, 1}, Shape{3, 16}, Shape{2, 19}, Shape{5, 97}}) {
    Tensor gate_up = random_tensor({shape[0], 2 * shape[1]}, DType::kF32, 1);
    for (float& value : gate_up.span<float>()) value *= 5.0f;
    Tensor y = Tensor::empty(shape, DType::kF32);
    swiglu(gate_up, y, stream);
    std::vector<double> expected;
    for (int64_t r = 0; r < shape[0]; ++r) {
      for (int64_t i = 0; i < shape[1]; ++i) {
        const double gate = gate_up.row<float>(r)[i], up = gate_up.row<float>(r)[shape[1] + i];
        expected.push_back(gate / (1 + std::exp(-gate)) * up);
      }
    }
    expect_close(y, expected, 1e-6);
  }
}

TEST(Swiglu, SaturatesFarFromZero) {
  Stream stream;
  Tensor gate_up = Tensor::zeros({1, 6}, DType::kF32), y = Tensor::empty({1, 3}, DType::kF32);
  const float values[6] = {-200.0f, 200.0f, -80.0f, 3.0f, 3.0f, 1.0f};
  std::memcpy(gate_up.bytes(), values, sizeof(values));
  swiglu(gate_up, y, stream);
  EXPECT_EQ(y.data<float>()[0], 0.0f);
  EXPECT_EQ(y.data<float>()[1], 600.0f);
  EXPECT_NEAR(y.data<float>()[2], 0.0f, 1e-30);
}

TEST(Swiglu, RowHasTheSameBitsAloneAndAmongOthers) {
  Stream stream;
  const Tensor gate_up = random_tensor({9, 2 * 21}, DType::kF32, 2);
  Tensor all = Tensor::empty({9, 21}, DType::kF32), one = Tensor::empty({1, 21}, DType::kF32);
  swiglu(gate_up, all, stream);
  for (int64_t row = 0; row < 9; ++row) {
    swiglu(gate_up.slice(row, row + 1), one, stream);
    EXPECT_TRUE(same_bits(one, all.slice(row, row + 1)));
  }
}

TEST(Swiglu, HasTheSameBitsOnAnyNumberOfThreads) {
  const Tensor gate_up = random_tensor({307, 2 * 131}, DType::kF32, 3);
  expect_same_bits_on_any_number_of_threads([&](Stream& stream) {
    Tensor y = Tensor::empty({307, 131}, DType::kF32);
    swiglu(gate_up, y, stream);
    return y;
  });
}

}  // namespace
}  // namespace skipper
