// Products on tensor cores against FP64 sums, and that a row's bits depend on nothing but the row.
#include "kernels/cuda/matrix_products.h"

#include <numeric>
#include <string>

#include "kernels/elementwise.h"
#include "tests/kernels/cuda/gpu_test.h"

namespace skipper::cuda {
namespace {

const WeightFormat kBF16Format{WeightKind::kBF16, 0};

std::vector<WeightFormat> formats() {
  return {kBF16Format,
          {WeightKind::kInt8, 32},
          {WeightKind::kInt8, 64},
          {WeightKind::kInt4, 32},
          {WeightKind::kInt4, 64},
          {WeightKind::kInt4, 128}};
}

Tensor random_bf16(const Shape& shape, uint32_t seed) {
  const Tensor values = random_f32(shape, seed);
  Tensor rounded = Tensor::empty(shape, DType::kBF16);
  cpu::convert(values, rounded);
  return rounded;
}

Tensor as_f32(const Tensor& bf16_values) {
  Tensor values = Tensor::empty(bf16_values.shape(), DType::kF32);
  cpu::convert(bf16_values, values);
  return values;
}

Tensor rounded_to_bf16(const Tensor& values) {
  Tensor rounded = Tensor::empty(values.shape(), DType::kBF16);
  cpu::convert(values, rounded);
  return as_f32(rounded);
}

// y[r] = w · x[r] in FP64. x [T, K] f32 · w [N, K] f32
Tensor product(const Tensor& x, const Tensor& w) {
  Tensor y = Tensor::empty({x.dim(0), w.dim(0)}, DType::kF32);
  for (int64_t t = 0; t < x.dim(0); ++t) {
    for (int64_t n = 0; n < w.dim(0); ++n) {
      const float* a = x.row<float>(t);
      const float* b = w.row<float>(n);
      double sum = 0.0;
      for (int64_t k = 0; k < w.dim(1); ++k) sum += static_cast<double>(a[k]) * b[k];
      y.row<float>(t)[n] = static_cast<float>(sum);
    }
  }
  return y;
}

// One set of matrices on the GPU, and what they stand for.
struct Matrices {
  DeviceMatrices on_gpu;
  std::vector<Tensor> weights;  // [N, K] f32 each, as the kernel multiplies with them: rounded to BF16
};

class MatrixProducts : public GpuTest {
 protected:
  Matrices make(const std::vector<WeightFormat>& of, const MatrixShape& shape, uint32_t seed) {
    Matrices made{empty_device_matrices(of, shape, Device::cuda(0)), {}};
    for (size_t i = 0; i < of.size(); ++i) {
      const Tensor w = random_f32({shape.num_rows, shape.num_columns}, seed + static_cast<uint32_t>(i), 0.05f);
      std::vector<std::byte> packed(device_matrix_bytes(of[i], shape));
      pack_device_matrix(w, of[i], packed);
      upload_matrix(packed, static_cast<int>(i), made.on_gpu, stream());
      stream().synchronize();
      made.weights.push_back(rounded_to_bf16(read_back(made.on_gpu, static_cast<int>(i), stream())));
    }
    return made;
  }

  Tensor linear_on_gpu(const Tensor& x, const DeviceMatrices& w) {
    const Tensor rows = on_gpu(x);
    Tensor y = poisoned({x.dim(0), w.shape.num_rows}, DType::kF32);
    linear(rows, w, y, stream());
    return on_host(y);
  }
};

struct Size {
  int64_t num_rows, num_columns;
};

TEST_F(MatrixProducts, LinearMatchesTheDefinitionInEveryFormatAndShape) {
  for (const Size size : {Size{64, 64}, Size{128, 256}, Size{192, 96}, Size{100, 72}, Size{1040, 520}, Size{1, 8}}) {
    for (const WeightFormat& format : formats()) {
      const Matrices w = make({format}, {size.num_rows, size.num_columns}, 1);
      for (const int64_t rows : {1, 3, 8, 17, 64, 65, 130, 300}) {
        const Tensor x = random_bf16({rows, size.num_columns}, static_cast<uint32_t>(rows));
        const Tensor expected = product(as_f32(x), w.weights[0]);
        EXPECT_LT(relative_error(linear_on_gpu(x, w.on_gpu), expected), 1e-5)
            << name_of(format) << " " << size.num_rows << " x " << size.num_columns << ", " << rows << " rows";
      }
    }
  }
}

TEST_F(MatrixProducts, NoRowsAreNoWork) {
  const Matrices w = make({kBF16Format}, {64, 64}, 1);
  EXPECT_EQ(linear_on_gpu(Tensor::empty({0, 64}, DType::kBF16), w.on_gpu).num_elements(), 0);
}

// Rows of a large batch, alone and in every width of tile, narrow and wide.
TEST_F(MatrixProducts, BitsOfARowDoNotDependOnTheNumberOfRows) {
  constexpr int64_t kOutputs = 17 * 1024, kInputs = 2048;  // enough row tiles for wide ones
  for (const WeightFormat& format : {kBF16Format, WeightFormat{WeightKind::kInt4, 64}}) {
    DeviceMatrices w = empty_device_matrices(std::vector{format}, {kOutputs, kInputs}, Device::cuda(0));
    fill_random(w, 3, stream());
    const Tensor x = random_bf16({700, kInputs}, 5);
    const Tensor all = linear_on_gpu(x, w);
    for (const int64_t rows : {1, 8, 9, 32, 33, 64, 100, 129, 256, 513}) {
      const Tensor some = linear_on_gpu(x.first(rows), w);
      EXPECT_TRUE(same_bytes(some, all.first(rows))) << name_of(format) << ", " << rows << " rows";
    }
    const Tensor last = linear_on_gpu(x.slice(699, 700), w);
    EXPECT_TRUE(same_bytes(last, all.slice(699, 700)));
  }
}

TEST_F(MatrixProducts, BF16OutputIsTheRoundedF32Output) {
  const Matrices w = make({kBF16Format}, {200, 128}, 1);
  const Tensor x = random_bf16({70, 128}, 2);
  Tensor y = poisoned({70, 200}, DType::kBF16);
  linear(on_gpu(x), w.on_gpu, y, stream());
  const Tensor expected = rounded_to_bf16(linear_on_gpu(x, w.on_gpu));
  EXPECT_TRUE(same_bytes(as_f32(on_host(y)), expected));
}

// Rows of experts: none, one, some, many.
struct ExpertCase {
  std::vector<int32_t> counts;
  int64_t expected_rows;
};

Tensor offsets_of(const std::vector<int32_t>& counts) {
  Tensor offsets = Tensor::zeros({static_cast<int64_t>(counts.size()) + 1}, DType::kI32);
  std::partial_sum(counts.begin(), counts.end(), offsets.data<int32_t>() + 1);
  return offsets;
}

class ExpertProducts : public MatrixProducts, public testing::WithParamInterface<ExpertCase> {};

// Experts of every format in one layer, in one pass.
TEST_P(ExpertProducts, DownMatchesTheDefinitionWithMixedFormats) {
  const auto& [counts, expected_rows] = GetParam();
  std::vector<WeightFormat> mixed;
  for (size_t e = 0; e < counts.size(); ++e) mixed.push_back(formats()[e % formats().size()]);
  const Matrices w = make(mixed, {200, 96}, 7);
  const Tensor offsets = offsets_of(counts);
  const int64_t num_rows = offsets.data<int32_t>()[counts.size()];
  const Tensor x = random_bf16({num_rows + 5, 96}, 8);
  Tensor y = poisoned({num_rows + 5, 200}, DType::kF32);
  const Tensor rows_on_gpu = on_gpu(x), offsets_on_gpu = on_gpu(offsets);
  expert_down({rows_on_gpu, offsets_on_gpu, expected_rows}, w.on_gpu, y, stream());
  const Tensor result = on_host(y);
  for (size_t e = 0; e < counts.size(); ++e) {
    const int64_t begin = offsets.data<int32_t>()[e], end = offsets.data<int32_t>()[e + 1];
    if (begin == end) continue;
    const Tensor expected = product(as_f32(x.slice(begin, end)), w.weights[e]);
    EXPECT_LT(relative_error(result.slice(begin, end), expected), 1e-5) << "expert " << e << " " << name_of(mixed[e]);
  }
  for (int64_t r = num_rows; r < num_rows + 5; ++r) {
    EXPECT_TRUE(std::isnan(result.row<float>(r)[0])) << "row " << r << " was written";
  }
}

TEST_P(ExpertProducts, GateUpMatchesTheDefinition) {
  const auto& [counts, expected_rows] = GetParam();
  constexpr int64_t kWidth = 96, kHidden = 136;
  const auto num_experts = static_cast<int64_t>(counts.size());
  DeviceMatrices w = empty_device_matrices(std::vector(counts.size(), kBF16Format), {2 * kWidth, kHidden}, Device::cuda(0));
  std::vector<Tensor> gates, ups;
  for (int64_t e = 0; e < num_experts; ++e) {
    gates.push_back(random_bf16({kWidth, kHidden}, 20 + static_cast<uint32_t>(e)));
    ups.push_back(random_bf16({kWidth, kHidden}, 50 + static_cast<uint32_t>(e)));
    std::vector<std::byte> packed(device_matrix_bytes(kBF16Format, w.shape));
    pack_device_gate_up(gates.back(), ups.back(), kBF16Format, packed);
    upload_matrix(packed, static_cast<int>(e), w, stream());
    stream().synchronize();
  }
  const Tensor offsets = offsets_of(counts);
  const int64_t num_rows = offsets.data<int32_t>()[num_experts];
  const Tensor x = random_bf16({num_rows, kHidden}, 9);
  Tensor y = poisoned({num_rows, kWidth}, DType::kBF16);
  const Tensor rows_on_gpu = on_gpu(x), offsets_on_gpu = on_gpu(offsets);
  expert_gate_up({rows_on_gpu, offsets_on_gpu, expected_rows}, w, y, stream());
  const Tensor result = as_f32(on_host(y));
  for (int64_t e = 0; e < num_experts; ++e) {
    const int64_t begin = offsets.data<int32_t>()[e], end = offsets.data<int32_t>()[e + 1];
    if (begin == end) continue;
    const Tensor rows = as_f32(x.slice(begin, end));
    const Tensor gate = product(rows, as_f32(gates[static_cast<size_t>(e)]));
    Tensor expected = product(rows, as_f32(ups[static_cast<size_t>(e)]));
    for (int64_t i = 0; i < expected.num_elements(); ++i) {
      const float g = gate.data<float>()[i];
      expected.data<float>()[i] *= g / (1.0f + std::exp(-g));
    }
    EXPECT_LT(relative_error(result.slice(begin, end), expected), 4e-3) << "expert " << e;
  }
}

INSTANTIATE_TEST_SUITE_P(Counts, ExpertProducts,
                         testing::Values(ExpertCase{{1, 0, 0, 2, 1, 0, 3}, 1}, ExpertCase{{0, 9, 30, 1, 0, 17, 5, 70}, 8},
                                         ExpertCase{{0, 0, 200}, 100}, ExpertCase{{300, 1, 65, 0, 129, 190, 257}, 150},
                                         ExpertCase{{40, 41, 3}, 30}, ExpertCase{{1}, 1}));

}  // namespace
}  // namespace skipper::cuda
