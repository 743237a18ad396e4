#include "kernels/rms_norm_rope.h"

#include "kernels/rope.h"
#include "tests/kernels/random_tensors.h"

namespace skipper {
namespace {

class RmsNormRopeTest : public testing::TestWithParam<WeightType> {};

TEST_P(RmsNormRopeTest, HasTheBitsOfBothKernelsOnAnyNumberOfThreads) {
  Stream stream;
  for (const Shape& shape :
       {Shape{0, 2, 4}, Shape{1, 1, 2}, Shape{3, 2, 32}, Shape{5, 3, 38}, Shape{307, 7, 64}, Shape{2, 1, 262}}) {
    const Tensor weight = random_tensor({shape[2]}, GetParam().dtype, 1);
    const Tensor angles = random_tensor({shape[0], shape[2] / 2}, DType::kF32, 2);
    Tensor expected = random_tensor(shape, DType::kF32, 3);
    rms_norm(expected, weight, 1e-5f, expected, stream);
    rope(expected, angles, stream);
    for (const int num_threads : {1, 2, 3}) {
      ThreadPool workers(num_threads);
      Stream shared(workers);
      Tensor x = random_tensor(shape, DType::kF32, 3);
      rms_norm_rope(x, {weight, 1e-5f}, angles, shared);
      EXPECT_TRUE(same_bits(x, expected)) << shape.to_string() << ", " << num_threads << " threads";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Weights, RmsNormRopeTest, testing::ValuesIn(kWeightTypes), name_of_weight_type);

}  // namespace
}  // namespace skipper
