#include "tensor/tensor.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace skipper {
namespace {

TEST(Shape, PrintsAndMultipliesItsDimensions) {
  EXPECT_EQ(Shape({2, 3, 5}).to_string(), "[2, 3, 5]");
  EXPECT_EQ(Shape({2, 3, 5}).num_elements(), 30);
  EXPECT_EQ(Shape({7, 0}).num_elements(), 0);
  EXPECT_EQ(Shape().num_elements(), 1);
}

TEST(Tensor, SlicesShareTheBuffer) {
  Tensor tensor = Tensor::zeros({4, 3}, DType::kF32);
  Tensor middle = tensor.slice(1, 3);
  middle.data<float>()[0] = 8.0f;
  EXPECT_EQ(middle.shape(), Shape({2, 3}));
  EXPECT_EQ(tensor.row<float>(1)[0], 8.0f);
  EXPECT_EQ(tensor.at(1).shape(), Shape({3}));
  EXPECT_EQ(tensor.reshaped({12}).data<float>()[3], 8.0f);
}

TEST(Tensor, WithoutRowsIsStillDefined) {
  const Tensor empty = Tensor::empty({0, 5}, DType::kBF16);
  EXPECT_TRUE(empty.defined());
  EXPECT_EQ(empty.num_bytes(), 0u);
  EXPECT_EQ(empty.first(0).dim(1), 5);
}

TEST(Bf16, RoundsToNearestEvenAndKeepsNan) {
  EXPECT_EQ(bf16(1.0f).bits, 0x3f80);
  EXPECT_EQ(bf16(1.00390625f).bits, 0x3f80);  // halfway, down to even
  EXPECT_EQ(bf16(1.01171875f).bits, 0x3f82);  // halfway, up to even
  EXPECT_EQ(bf16(std::numeric_limits<float>::max()).bits, 0x7f80);
  EXPECT_TRUE(std::isnan(static_cast<float>(bf16(std::numeric_limits<float>::quiet_NaN()))));
}

}  // namespace
}  // namespace skipper
