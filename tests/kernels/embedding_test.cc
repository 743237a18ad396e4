#include "kernels/embedding.h"

#include "tests/kernels/random_tensors.h"

namespace skipper {
namespace {

class EmbeddingTest : public testing::TestWithParam<WeightType> {
 protected:
  Stream stream_;
};

TEST_P(EmbeddingTest, CopiesTheRowOfEachId) {
  const Tensor table = random_tensor({7, 19}, GetParam().dtype, 1);
  const std::vector<int32_t> ids = {6, 0, 3, 3};
  Tensor y = Tensor::empty({4, 19}, DType::kF32);
  embedding(index_tensor(ids), table, y, stream_);
  const std::vector<double> rows = as_doubles(table);
  for (size_t t = 0; t < ids.size(); ++t) {
    for (size_t i = 0; i < 19; ++i) EXPECT_EQ(double{y.data<float>()[t * 19 + i]}, rows[static_cast<size_t>(ids[t]) * 19 + i]);
  }
}

TEST_P(EmbeddingTest, AcceptsNoTokens) {
  Tensor y = Tensor::empty({0, 19}, DType::kF32);
  embedding(index_tensor({}), random_tensor({7, 19}, GetParam().dtype, 1), y, stream_);
}

TEST_P(EmbeddingTest, HasTheSameBitsOnAnyNumberOfThreads) {
  const Tensor table = random_tensor({7, 1019}, GetParam().dtype, 2);
  std::vector<int32_t> ids;
  for (int32_t t = 0; t < 307; ++t) ids.push_back(t * t % 7);
  expect_same_bits_on_any_number_of_threads([&](Stream& stream) {
    Tensor y = Tensor::empty({307, 1019}, DType::kF32);
    embedding(index_tensor(ids), table, y, stream);
    return y;
  });
}

INSTANTIATE_TEST_SUITE_P(Weights, EmbeddingTest, testing::ValuesIn(kWeightTypes), name_of_weight_type);

TEST(EmbeddingDeathTest, RefusesAnIdOutsideTheTable) {
  Stream stream;
  Tensor y = Tensor::zeros({1, 2}, DType::kF32);
  const Tensor table = Tensor::zeros({3, 2}, DType::kF32);
  EXPECT_DEATH(embedding(index_tensor({3}), table, y, stream), "row 3 of 3");
  EXPECT_DEATH(embedding(index_tensor({-1}), table, y, stream), "row -1 of 3");
}

}  // namespace
}  // namespace skipper
