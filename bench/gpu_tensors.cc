#include "bench/gpu_tensors.h"

#include <algorithm>
#include <random>

namespace skipper::cuda {
namespace {

constexpr int64_t kDistinctElements = int64_t{1} << 20;

void copy(const Tensor& from, Tensor to, Stream& stream) {
  copy_bytes({from.bytes(), from.device(), to.bytes(), to.device(), from.num_bytes()}, stream);
}

}  // namespace

Tensor to_gpu(const Tensor& host, Stream& stream) {
  Tensor gpu = Tensor::empty(host.shape(), host.dtype(), stream.device());
  copy(host, gpu, stream);
  stream.synchronize();
  return gpu;
}

Tensor to_host(const Tensor& gpu, Stream& stream) {
  Tensor host = Tensor::empty(gpu.shape(), gpu.dtype());
  copy(gpu, host, stream);
  stream.synchronize();
  return host;
}

Tensor integers_on_gpu(const std::vector<int32_t>& values, const Shape& shape, Stream& stream) {
  return to_gpu(Tensor::borrow_const(values.data(), shape, DType::kI32), stream);
}

std::vector<float> row_values(const Tensor& host, int64_t row) {
  std::vector<float> values(static_cast<size_t>(host.row_elements()));
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = host.dtype() == DType::kBF16 ? static_cast<float>(host.row<bf16>(row)[i]) : host.row<float>(row)[i];
  }
  return values;
}

Tensor rounded_on_gpu(const Tensor& values, Stream& stream) {
  Tensor rounded = Tensor::empty(values.shape(), DType::kBF16);
  std::ranges::transform(values.span<float>(), rounded.data<bf16>(), [](float value) { return bf16(value); });
  return to_gpu(rounded, stream);
}

Tensor random_on_gpu(const Shape& shape, DType dtype, uint32_t seed, Stream& stream) {
  Tensor gpu = Tensor::empty(shape, dtype, stream.device());
  const int64_t wanted = std::max<int64_t>(1, kDistinctElements / std::max<int64_t>(1, gpu.row_elements()));
  const int64_t num_rows = std::min(gpu.dim(0), wanted);
  Tensor some = Tensor::empty(shape.with_first(num_rows), DType::kF32);
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  for (float& value : some.span<float>()) value = normal(generator);
  const Tensor first = dtype == DType::kBF16 ? rounded_on_gpu(some, stream) : to_gpu(some, stream);
  for (int64_t row = 0; row < gpu.dim(0); row += num_rows) {
    const int64_t count = std::min(num_rows, gpu.dim(0) - row);
    copy(first.first(count), gpu.slice(row, row + count), stream);
  }
  stream.synchronize();
  return gpu;
}

}  // namespace skipper::cuda
