#include "bench/gpu_product_cases.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <optional>
#include <random>

#include "bench/cublas_products.h"
#include "bench/gpu_clock.h"
#include "bench/gpu_tensors.h"
#include "kernels/cuda/device_matrix.h"
#include "kernels/cuda/matrix_products.h"

namespace skipper::cuda {
namespace {

constexpr int64_t kHidden = 2048, kWidth = 768, kExperts = 128, kTopK = 8;
constexpr int64_t kReadBackExperts = 4;  // whose weights the library gets and whose rows are compared; the others' are copies
constexpr size_t kRotatedBytes = size_t{160} << 20;  // of dense weights that runs take turns with: more than the L2 cache
constexpr size_t kRoutings = 4;
constexpr int64_t kComparedRows = 64;
constexpr int64_t kComparedOutputs = 8192;  // of a dense product: reading back a whole head takes the host ten seconds
// Both sum in FP32, in another order, where a weight rounded otherwise would show; outputs of the library's grouped product are
// rounded to BF16.
constexpr double kDenseError = 1e-3, kExpertError = 1e-2;

struct DenseShape {
  const char* name;
  MatrixShape matrix;
  std::vector<int64_t> rows;
};

const std::array<DenseShape, 3> kDenseShapes = {{{"qkv", {5120, kHidden}, {1, 8, 32, 128, 2048, 8192}},
                                                 {"o", {kHidden, 4096}, {1, 8, 32, 128, 2048, 8192}},
                                                 {"head", {151936, kHidden}, {1, 8, 32, 128}}}};

// Weights that runs take turns with, and what the first are, for the library: rows from kComparedOutputs on repeat the others.
struct DenseWeights {
  std::vector<DeviceMatrices> packed;
  std::vector<Tensor> plain;  // [N, K] bf16, all alike
};

// [n, K] bf16 on the GPU. The first rows of a matrix come first in its memory.
Tensor first_rows(const DeviceMatrices& matrices, int64_t num_rows, Stream& stream) {
  const MatrixShape shape{num_rows, matrices.shape.num_columns};
  const size_t num_bytes = device_matrix_bytes(matrices.formats[0], shape);
  DeviceMatrices first = matrices;
  first.shape = shape;
  first.memory = matrices.memory.first(static_cast<int64_t>(num_bytes));
  return rounded_on_gpu(read_back(first, 0, stream), stream);
}

// [N, K] of rows that repeat.
Tensor repeated_rows(const Tensor& rows, int64_t num_rows, Stream& stream) {
  Tensor matrix = Tensor::empty(rows.shape().with_first(num_rows), rows.dtype(), stream.device());
  for (int64_t begin = 0; begin < num_rows; begin += rows.dim(0)) {
    Tensor place = matrix.slice(begin, std::min(begin + rows.dim(0), num_rows));
    copy_bytes({rows.bytes(), rows.device(), place.bytes(), place.device(), place.num_bytes()}, stream);
  }
  return matrix;
}

DenseWeights make_dense_weights(const WeightFormat& format, const MatrixShape& shape, Stream& stream) {
  DenseWeights weights;
  const size_t copies = kRotatedBytes / device_matrix_bytes(format, shape) + 1;
  for (size_t i = 0; i < copies; ++i) {
    weights.packed.push_back(empty_device_matrices(std::vector<WeightFormat>{format}, shape, stream.device()));
    fill_random(weights.packed.back(), i + 1, stream);
  }
  const Tensor first = first_rows(weights.packed[0], std::min(shape.num_rows, kComparedOutputs), stream);
  do {
    weights.plain.push_back(repeated_rows(first, shape.num_rows, stream));
  } while (weights.plain.size() * weights.plain[0].num_bytes() < kRotatedBytes);
  stream.synchronize();
  return weights;
}

// Over the first rows and outputs of both.
double error_between(const Tensor& actual, const Tensor& expected, Stream& stream) {
  const int64_t count = std::min(actual.dim(0), kComparedRows);
  const Tensor a = to_host(actual.first(count), stream), e = to_host(expected.first(count), stream);
  RelativeError error;
  for (int64_t row = 0; row < count; ++row) {
    const std::vector<float> ours = row_values(a, row), theirs = row_values(e, row);
    const size_t num_outputs = std::min(ours.size(), static_cast<size_t>(kComparedOutputs));
    for (size_t i = 0; i < num_outputs; ++i) error.add(double{ours[i]}, double{theirs[i]});
  }
  return error.value();
}

void visit_dense_case(const std::string& name, const DenseWeights& weights, int64_t num_rows, const CaseVisitor& visit,
                      Stream& stream) {
  const MatrixShape& shape = weights.packed[0].shape;
  const Tensor x = random_on_gpu({num_rows, shape.num_columns}, DType::kBF16, 3, stream);
  Tensor y = Tensor::empty({num_rows, shape.num_rows}, DType::kF32, stream.device());
  Tensor expected = Tensor::empty(y.shape(), DType::kF32, stream.device());
  const CublasLtProduct library(x, weights.plain[0], expected, stream);
  GpuKernelCase product;
  product.name = name;
  product.operations = 2.0 * static_cast<double>(num_rows * shape.num_rows * shape.num_columns);
  product.num_bytes = static_cast<double>(weights.packed[0].num_bytes());
  product.allowed_error = kDenseError;
  product.measure_error = [&] {
    linear(x, weights.packed[0], y, stream);
    library.run(x, weights.plain[0], expected, stream);
    return error_between(y, expected, stream);
  };
  product.run = [&](int i) { linear(x, weights.packed[static_cast<size_t>(i) % weights.packed.size()], y, stream); };
  product.library = [&](int i) {
    library.run(x, weights.plain[static_cast<size_t>(i) % weights.plain.size()], expected, stream);
  };
  visit(product);
}

// Rows of each expert, each token with top-k experts drawn evenly.
struct RandomRouting {
  std::vector<int32_t> offsets;  // [E + 1]
  Tensor on_gpu;

  int64_t num_active() const {
    int64_t active = 0;
    for (size_t e = 0; e + 1 < offsets.size(); ++e) active += offsets[e] < offsets[e + 1] ? 1 : 0;
    return active;
  }
};

RandomRouting random_routing(int64_t num_tokens, std::mt19937& generator, Stream& stream) {
  std::vector<int32_t> counts(kExperts), experts(kExperts);
  std::iota(experts.begin(), experts.end(), 0);
  for (int64_t token = 0; token < num_tokens; ++token) {
    for (size_t j = 0; j < kTopK; ++j) {
      std::swap(experts[j], experts[j + generator() % (kExperts - j)]);
      ++counts[static_cast<size_t>(experts[j])];
    }
  }
  RandomRouting routing{std::vector<int32_t>(kExperts + 1), {}};
  std::partial_sum(counts.begin(), counts.end(), routing.offsets.begin() + 1);
  routing.on_gpu = integers_on_gpu(routing.offsets, {kExperts + 1}, stream);
  return routing;
}

struct ExpertWeights {
  DeviceMatrices packed;
  Tensor plain;  // [E, N, K] bf16
};

ExpertWeights make_expert_weights(const WeightFormat& format, const MatrixShape& shape, Stream& stream) {
  const std::vector<WeightFormat> formats(kExperts, format);
  ExpertWeights weights{empty_device_matrices(formats, shape, stream.device()),
                        Tensor::empty({kExperts, shape.num_rows, shape.num_columns}, DType::kBF16, stream.device())};
  fill_random(weights.packed, 11, stream);
  for (int e = 0; e < kReadBackExperts; ++e) {
    const Tensor plain = rounded_on_gpu(read_back(weights.packed, e, stream), stream);
    for (int64_t copy = e; copy < kExperts; copy += kReadBackExperts) {
      Tensor place = weights.plain.at(copy);
      copy_bytes({plain.bytes(), plain.device(), place.bytes(), place.device(), plain.num_bytes()}, stream);
    }
    stream.synchronize();
  }
  return weights;
}

// What both expert products of one number of tokens work on.
struct ExpertOperands {
  int64_t num_rows = 0;
  int64_t expected_rows = 1;  // of an expert
  std::vector<RandomRouting> routings = {};
  RandomRouting compared = {};  // all rows go to the experts whose weights the library has
};

ExpertOperands make_expert_operands(int64_t num_tokens, Stream& stream) {
  std::mt19937 generator(17);
  ExpertOperands operands{num_tokens * kTopK, std::max<int64_t>(1, num_tokens * kTopK / kExperts)};
  for (size_t i = 0; i < kRoutings; ++i) operands.routings.push_back(random_routing(num_tokens, generator, stream));
  std::vector<int32_t>& offsets = operands.compared.offsets;
  for (int64_t e = 0; e <= kExperts; ++e) {
    offsets.push_back(static_cast<int32_t>(operands.num_rows * std::min(e, kReadBackExperts) / kReadBackExperts));
  }
  operands.compared.on_gpu = integers_on_gpu(offsets, {kExperts + 1}, stream);
  return operands;
}

double silu(double x) { return x / (1.0 + std::exp(-x)); }

// activated of ours against gate and up of the library, which lie in turn by eight.
double swiglu_error(const Tensor& activated, const Tensor& gate_up, Stream& stream) {
  constexpr size_t kTurn = 8;
  const int64_t count = std::min(activated.dim(0), kComparedRows);
  const Tensor ours = to_host(activated.first(count), stream), theirs = to_host(gate_up.first(count), stream);
  RelativeError error;
  for (int64_t row = 0; row < count; ++row) {
    const std::vector<float> actual = row_values(ours, row), both = row_values(theirs, row);
    for (size_t i = 0; i < actual.size(); ++i) {
      const size_t gate = i / kTurn * 2 * kTurn + i % kTurn;
      error.add(double{actual[i]}, silu(double{both[gate]}) * double{both[gate + kTurn]});
    }
  }
  return error.value();
}

enum class ExpertProduct : uint8_t { kGateUp, kDown };

void visit_expert_case(const std::string& name, ExpertProduct kind, const ExpertWeights& weights, const ExpertOperands& operands,
                       const CaseVisitor& visit, Stream& stream) {
  const MatrixShape& shape = weights.packed.shape;
  const bool is_gate_up = kind == ExpertProduct::kGateUp;
  const Tensor x = random_on_gpu({operands.num_rows, shape.num_columns}, DType::kBF16, 4, stream);
  Tensor y = Tensor::empty({operands.num_rows, is_gate_up ? kWidth : shape.num_rows}, is_gate_up ? DType::kBF16 : DType::kF32,
                           stream.device());
  Tensor library_y = Tensor::empty({operands.num_rows, shape.num_rows}, DType::kBF16, stream.device());
  const auto run = [&](const RandomRouting& routing) {
    const SortedRows rows{x, routing.on_gpu, operands.expected_rows};
    is_gate_up ? expert_gate_up(rows, weights.packed, y, stream) : expert_down(rows, weights.packed, y, stream);
  };
  std::vector<CublasGroupedProduct> library;
  double num_active = 0.0;
  for (const RandomRouting& routing : operands.routings) {
    library.emplace_back(routing.offsets, x, weights.plain, library_y, stream);
    num_active += static_cast<double>(routing.num_active()) / kRoutings;
  }
  GpuKernelCase product;
  product.name = name;
  product.operations = 2.0 * static_cast<double>(operands.num_rows * shape.num_rows * shape.num_columns);
  product.num_bytes = static_cast<double>(weights.packed.num_bytes()) * num_active / kExperts;
  product.allowed_error = kExpertError;
  product.measure_error = [&] {
    run(operands.compared);
    CublasGroupedProduct(operands.compared.offsets, x, weights.plain, library_y, stream).run(stream);
    return is_gate_up ? swiglu_error(y, library_y, stream) : error_between(y, library_y, stream);
  };
  product.run = [&](int i) { run(operands.routings[static_cast<size_t>(i) % kRoutings]); };
  product.library = [&](int i) { library[static_cast<size_t>(i) % kRoutings].run(stream); };
  product.library_can_be_captured = false;
  visit(product);
}

}  // namespace

void visit_dense_cases(const std::vector<WeightFormat>& formats, const CaseFilter& filter, const CaseVisitor& visit,
                       Stream& stream) {
  for (const WeightFormat& format : formats) {
    for (const DenseShape& shape : kDenseShapes) {
      std::optional<DenseWeights> weights;  // only for cases that are wanted
      for (const int64_t rows : shape.rows) {
        const std::string name = name_of(format) + " " + shape.name + " " + std::to_string(rows) + " rows";
        if (!filter(name)) continue;
        if (!weights) weights = make_dense_weights(format, shape.matrix, stream);
        visit_dense_case(name, *weights, rows, visit, stream);
      }
    }
  }
}

void visit_expert_cases(const std::vector<WeightFormat>& formats, const CaseFilter& filter, const CaseVisitor& visit,
                        Stream& stream) {
  struct Kind {
    ExpertProduct product;
    const char* name;
    MatrixShape shape;
  };
  const Kind kinds[] = {{ExpertProduct::kGateUp, "gate_up", {2 * kWidth, kHidden}},
                        {ExpertProduct::kDown, "down", {kHidden, kWidth}}};
  for (const WeightFormat& format : formats) {
    for (const Kind& kind : kinds) {
      std::optional<ExpertWeights> weights;
      for (const int64_t tokens : {1, 8, 32, 128, 2048, 8192}) {
        const std::string name = name_of(format) + " " + kind.name + " " + std::to_string(tokens) + " tokens";
        if (!filter(name)) continue;
        if (!weights) weights = make_expert_weights(format, kind.shape, stream);
        visit_expert_case(name, kind.product, *weights, make_expert_operands(tokens, stream), visit, stream);
      }
    }
  }
}

double peak_operations_per_second(Stream& stream) {
  constexpr int64_t kSize = 8192;
  const Tensor x = random_on_gpu({kSize, kSize}, DType::kBF16, 1, stream), w = random_on_gpu(x.shape(), DType::kBF16, 2, stream);
  Tensor y = Tensor::empty(x.shape(), DType::kBF16, stream.device());
  const CublasLtProduct product(x, w, y, stream);
  const double seconds = graph_seconds(4, [&](int) { product.run(x, w, y, stream); }, stream);
  return 2.0 * static_cast<double>(kSize) * kSize * kSize / seconds;
}

}  // namespace skipper::cuda
