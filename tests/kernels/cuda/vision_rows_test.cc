#include "kernels/cuda/vision_rows.h"

#include <cmath>

#include "kernels/cuda/packed_attention.h"
#include "kernels/elementwise.h"
#include "kernels/rope.h"
#include "tests/kernels/cuda/gpu_test.h"

namespace skipper::cuda {
namespace {

constexpr double kFloatError = 1e-6;
constexpr double kRoundingError = 3e-3;  // of BF16: half a unit in the last place is 2^-9

Tensor converted(const Tensor& x, DType dtype) {
  Tensor y = Tensor::empty(x.shape(), dtype);
  cpu::convert(x, y);
  return y;
}

// rows[t] + bias, on the host.
Tensor with_bias(const Tensor& rows, const Tensor& bias) {
  Tensor sum = converted(rows, DType::kF32);
  for (int64_t t = 0; t < rows.dim(0); ++t) {
    for (int64_t i = 0; i < rows.dim(1); ++i) sum.row<float>(t)[i] += bias.data<float>()[i];
  }
  return sum;
}

class VisionRows : public GpuTest {
 protected:
  Tensor widened(const Tensor& bf16_on_gpu) { return converted(on_host(bf16_on_gpu), DType::kF32); }
};

TEST_F(VisionRows, RoundsAsTheHostDoes) {
  for (const int64_t rows : {0, 1, 77}) {
    const Tensor x = random_f32({rows, 52}, 1);
    Tensor y = poisoned(x.shape(), DType::kBF16);
    round_to_bf16(on_gpu(x), y, stream());
    EXPECT_TRUE(same_bytes(on_host(y), converted(x, DType::kBF16))) << rows;
  }
}

TEST_F(VisionRows, AddsBiasAndTheMixOfFourTableRows) {
  constexpr int64_t kPatches = 37, kWidth = 1152, kCells = 49;
  const Tensor table = random_f32({kCells, kWidth}, 1), weights = random_f32({kPatches, 4}, 2), bias = random_f32({kWidth}, 3);
  Tensor cells = Tensor::empty({kPatches, 4}, DType::kI32);
  for (int64_t i = 0; i < 4 * kPatches; ++i) cells.data<int32_t>()[i] = static_cast<int32_t>(i * 11 % kCells);
  const Tensor projected = random_f32({kPatches, kWidth}, 4);
  Tensor expected = with_bias(projected, bias);
  for (int64_t p = 0; p < kPatches; ++p) {
    for (int64_t i = 0; i < kWidth; ++i) {
      double mixed = 0.0;
      for (int64_t c = 0; c < 4; ++c) mixed += weights.row<float>(p)[c] * double{table.row<float>(cells.row<int32_t>(p)[c])[i]};
      expected.row<float>(p)[i] += static_cast<float>(mixed);
    }
  }
  Tensor hidden = on_gpu(projected);
  add_positions({on_gpu(table), on_gpu(cells), on_gpu(weights)}, on_gpu(bias), hidden, stream());
  EXPECT_LT(relative_error(on_host(hidden), expected), kFloatError);
}

TEST_F(VisionRows, NormalisesRowsOfEveryWidth) {
  Stream host;
  for (const int64_t width : {4, 52, 192, 1152, 2052, 4608, 8192}) {
    for (const int64_t rows : {1, 13}) {
      Tensor x = random_f32({rows, width}, 1, 2.0f);
      for (int64_t i = 0; i < x.num_elements(); ++i) x.data<float>()[i] += 5.0f;
      const LayerNormWeights weights{random_f32({width}, 2), random_f32({width}, 3), 1e-6f};
      Tensor expected = Tensor::empty(x.shape(), DType::kF32), y = poisoned(x.shape(), DType::kBF16);
      skipper::layer_norm(x, weights, expected, host);
      layer_norm_to_bf16(on_gpu(x), {on_gpu(weights.weight), on_gpu(weights.bias), weights.epsilon}, y, stream());
      EXPECT_LT(relative_error(widened(y), expected), kRoundingError) << rows << " rows of " << width;
    }
  }
}

TEST_F(VisionRows, NormOfARowDoesNotDependOnTheOthers) {
  const Tensor x = on_gpu(random_f32({19, 1152}, 1));
  const LayerNormWeights weights{on_gpu(random_f32({1152}, 2)), on_gpu(random_f32({1152}, 3)), 1e-6f};
  Tensor all = poisoned({19, 1152}, DType::kBF16), one = poisoned({1, 1152}, DType::kBF16);
  layer_norm_to_bf16(x, weights, all, stream());
  layer_norm_to_bf16(x.slice(7, 8), weights, one, stream());
  EXPECT_TRUE(same_bytes(on_host(one), on_host(all.slice(7, 8))));
}

TEST_F(VisionRows, AppliesEitherGeluAfterTheBias) {
  Stream host;
  for (const GeluForm form : {GeluForm::kErf, GeluForm::kTanh}) {
    for (const int64_t width : {4, 512, 4304}) {
      const Tensor x = random_f32({5, width}, 1, 3.0f), bias = random_f32({width}, 2);
      Tensor expected = with_bias(x, bias), y = poisoned(x.shape(), DType::kBF16);
      skipper::gelu(expected, form, host);
      gelu(on_gpu(x), on_gpu(bias), form, y, stream());
      EXPECT_LT(relative_error(widened(y), expected), kRoundingError) << width;
    }
  }
}

TEST_F(VisionRows, GeluOfFarValuesIsTheValueOrZero) {
  Tensor x = Tensor::zeros({1, 4}, DType::kF32), bias = Tensor::zeros({4}, DType::kF32);
  x.data<float>()[0] = 1e4f;
  x.data<float>()[1] = -1e4f;
  x.data<float>()[2] = 100.0f;
  for (const GeluForm form : {GeluForm::kErf, GeluForm::kTanh}) {
    Tensor y = poisoned({1, 4}, DType::kBF16);
    gelu(on_gpu(x), on_gpu(bias), form, y, stream());
    const Tensor result = widened(y);
    EXPECT_NEAR(result.data<float>()[0], 1e4f, 40.0f);
    EXPECT_EQ(result.data<float>()[1], 0.0f);
    EXPECT_EQ(result.data<float>()[2], 100.0f);
    EXPECT_EQ(result.data<float>()[3], 0.0f);
  }
}

TEST_F(VisionRows, EndsASublayerAndAChainOfProducts) {
  for (const int64_t rows : {0, 1, 67}) {
    const Tensor x = random_f32({rows, 1152}, 1), bias = random_f32({1152}, 2), before = random_f32({rows, 1152}, 3);
    Tensor expected = with_bias(x, bias);
    Tensor chained = on_gpu(x), hidden = on_gpu(before);
    add_bias(on_gpu(bias), chained, stream());
    EXPECT_TRUE(same_bytes(on_host(chained), expected)) << rows;
    add_with_bias(on_gpu(x), on_gpu(bias), hidden, stream());
    cpu::add(before, expected, ThreadPool::caller_only());
    EXPECT_TRUE(same_bytes(on_host(hidden), expected)) << rows;
  }
}

// Heads [begin, begin + count) of each row of `rows`, [P, count, D] f32.
Tensor heads_of(const Tensor& rows, int64_t begin, int64_t count, int64_t head_dim) {
  Tensor part = Tensor::empty({rows.dim(0), count, head_dim}, DType::kF32);
  for (int64_t t = 0; t < rows.dim(0); ++t) {
    std::copy_n(rows.row<float>(t) + begin * head_dim, count * head_dim, part.row<float>(t));
  }
  return part;
}

// Whether padded [P, heads, padded D] holds `expected` and zeros.
void expect_padded(const Tensor& padded, const Tensor& expected, const char* name) {
  const int64_t width = padded.dim(2), head_dim = expected.dim(2);
  Tensor cut = Tensor::empty(expected.shape(), DType::kF32);
  for (int64_t head = 0; head < padded.dim(0) * padded.dim(1); ++head) {
    const float* values = padded.data<float>() + head * width;
    std::copy_n(values, head_dim, cut.data<float>() + head * head_dim);
    for (int64_t i = head_dim; i < width; ++i) ASSERT_EQ(values[i], 0.0f) << name << " " << head << ", " << i;
  }
  EXPECT_LT(relative_error(cut, expected), kRoundingError) << name << " heads of " << head_dim;
}

TEST_F(VisionRows, SplitsToHeadsThatAreRotatedAndPadded) {
  Stream host;
  constexpr int64_t kPatches = 23, kHeads = 3;
  for (const int64_t head_dim : {8, 32, 64, 72, 80, 128}) {
    const int64_t width = kHeads * head_dim;
    const Tensor qkv = random_f32({kPatches, 3 * width}, 1), bias = random_f32({3 * width}, 2);
    const Tensor angles = random_f32({kPatches, head_dim / 2}, 3, 3.0f);
    Tensor cos_sin = Tensor::empty({kPatches, head_dim}, DType::kF32);
    for (int64_t t = 0; t < kPatches; ++t) {
      for (int64_t i = 0; i < head_dim / 2; ++i) {
        cos_sin.row<float>(t)[i] = std::cos(angles.row<float>(t)[i]);
        cos_sin.row<float>(t)[head_dim / 2 + i] = std::sin(angles.row<float>(t)[i]);
      }
    }
    const Shape padded{kPatches, kHeads, padded_head_dim(head_dim)};
    VisionHeads heads{poisoned(padded, DType::kBF16), poisoned(padded, DType::kBF16), poisoned(padded, DType::kBF16)};
    split_vision_heads({on_gpu(qkv), on_gpu(bias), on_gpu(cos_sin)}, heads, stream());

    const Tensor biased = with_bias(qkv, bias);
    Tensor q = heads_of(biased, 0, kHeads, head_dim), k = heads_of(biased, kHeads, kHeads, head_dim);
    rope(q, angles, host);
    rope(k, angles, host);
    expect_padded(widened(heads.q), q, "q");
    expect_padded(widened(heads.k), k, "k");
    expect_padded(widened(heads.v), heads_of(biased, 2 * kHeads, kHeads, head_dim), "v");
  }
}

}  // namespace
}  // namespace skipper::cuda
