// Tensors of benchmarks on a GPU: random ones, copies to and from the host, and how far two results are apart.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "tensor/device_runtime.h"
#include "tensor/tensor.h"

namespace skipper::cuda {

// Copies, complete when they return.
Tensor to_gpu(const Tensor& host, Stream& stream);
Tensor to_host(const Tensor& gpu, Stream& stream);
Tensor integers_on_gpu(const std::vector<int32_t>& values, const Shape& shape, Stream& stream);
// Row `row` of an f32 or bf16 tensor on the host, as numbers.
std::vector<float> row_values(const Tensor& host, int64_t row);
// f32 on the host, rounded to BF16 on the GPU.
Tensor rounded_on_gpu(const Tensor& values, Stream& stream);

// Normal numbers. Of large tensors the first rows repeat, which no kernel notices.
Tensor random_on_gpu(const Shape& shape, DType dtype, uint32_t seed, Stream& stream);

// Root of (sum of squared differences ÷ sum of squares); NaN when anything is.
class RelativeError {
 public:
  void add(double actual, double expected) {
    difference_ += (actual - expected) * (actual - expected);
    size_ += expected * expected;
  }
  double value() const { return std::sqrt(difference_ / size_); }

 private:
  double difference_ = 0.0;
  double size_ = 0.0;
};

}  // namespace skipper::cuda
