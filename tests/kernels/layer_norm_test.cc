#include "kernels/layer_norm.h"

#include "tests/kernels/random_tensors.h"

namespace skipper {
namespace {

std::vector<double> layer_normalized(const Tensor& x, const LayerNormWeights& weights) {
  const std::vector<double> values = as_doubles(x), w = as_doubles(weights.weight), b = as_doubles(weights.bias);
  const auto size = static_cast<double>(w.size());
  std::vector<double> y(values.size());
  for (size_t begin = 0; begin < values.size(); begin += w.size()) {
    double mean = 0, variance = 0;
    for (size_t i = 0; i < w.size(); ++i) mean += values[begin + i] / size;
    for (size_t i = 0; i < w.size(); ++i) variance += (values[begin + i] - mean) * (values[begin + i] - mean) / size;
    for (size_t i = 0; i < w.size(); ++i) {
      y[begin + i] = (values[begin + i] - mean) / std::sqrt(variance + double{weights.epsilon}) * w[i] + b[i];
    }
  }
  return y;
}

class LayerNormTest : public testing::TestWithParam<WeightType> {
 protected:
  LayerNormWeights random_weights(int64_t size) const {
    return {random_tensor({size}, GetParam().dtype, 1), random_tensor({size}, GetParam().dtype, 2), 1e-5f};
  }
  Stream stream_;
};

TEST_P(LayerNormTest, CentresAndScalesEachRow) {
  for (const Shape& shape : {Shape{0, 5}, Shape{1, 1}, Shape{3, 16}, Shape{2, 17}, Shape{2, 3, 72}, Shape{5, 131}}) {
    const Tensor x = random_tensor(shape, DType::kF32, 3);
    const LayerNormWeights weights = random_weights(shape[shape.rank() - 1]);
    Tensor y = Tensor::empty(shape, DType::kF32);
    layer_norm(x, weights, y, stream_);
    expect_close(y, layer_normalized(x, weights), GetParam().tolerance);
  }
}

TEST_P(LayerNormTest, KeepsItsPrecisionFarFromZero) {
  Tensor x = random_tensor({3, 40}, DType::kF32, 4);
  for (float& value : x.span<float>()) value += 1000.0f;
  const LayerNormWeights weights = random_weights(40);
  Tensor y = Tensor::empty({3, 40}, DType::kF32);
  layer_norm(x, weights, y, stream_);
  expect_close(y, layer_normalized(x, weights), 1e-3);  // x itself is rounded to 1000 · 2^-24, the mean twice so
}

TEST_P(LayerNormTest, WorksInPlaceAndRowByRowWithTheSameBits) {
  Tensor x = random_tensor({9, 37}, DType::kF32, 5);
  const LayerNormWeights weights = random_weights(37);
  Tensor all = Tensor::empty({9, 37}, DType::kF32);
  layer_norm(x, weights, all, stream_);
  for (int64_t row = 0; row < 9; ++row) {
    Tensor one = x.slice(row, row + 1);
    layer_norm(one, weights, one, stream_);
  }
  EXPECT_TRUE(same_bits(x, all));
}

TEST_P(LayerNormTest, HasTheSameBitsOnAnyNumberOfThreads) {
  const Tensor x = random_tensor({701, 131}, DType::kF32, 6);
  const LayerNormWeights weights = random_weights(131);
  expect_same_bits_on_any_number_of_threads([&](Stream& stream) {
    Tensor y = Tensor::empty(x.shape(), DType::kF32);
    layer_norm(x, weights, y, stream);
    return y;
  });
}

INSTANTIATE_TEST_SUITE_P(Weights, LayerNormTest, testing::ValuesIn(kWeightTypes), name_of_weight_type);

}  // namespace
}  // namespace skipper
