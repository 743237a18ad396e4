// What the tests of CUDA kernels share: a fixture that skips without a GPU, uploads, downloads, and how far results are off.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "tensor/device_runtime.h"
#include "tensor/tensor.h"

namespace skipper::cuda {

class GpuTest : public testing::Test {
 protected:
  void SetUp() override {
    if (num_gpus() == 0) GTEST_SKIP() << "no GPU in this machine";
    stream_ = std::make_unique<Stream>(Device::cuda(0));
  }

  Stream& stream() { return *stream_; }
  Tensor on_gpu(const Tensor& host) {
    Tensor copy = Tensor::empty(host.shape(), host.dtype(), Device::cuda(0));
    copy_bytes({host.bytes(), host.device(), copy.bytes(), copy.device(), host.num_bytes()}, stream());
    stream().synchronize();
    return copy;
  }
  Tensor on_host(const Tensor& gpu) {
    Tensor copy = Tensor::empty(gpu.shape(), gpu.dtype());
    copy_bytes({gpu.bytes(), gpu.device(), copy.bytes(), copy.device(), gpu.num_bytes()}, stream());
    stream().synchronize();
    return copy;
  }
  // Memory in which a value that nobody wrote shows: NaNs as floats, large negative numbers as integers.
  Tensor poisoned(const Shape& shape, DType dtype) {
    Tensor host = Tensor::empty(shape, dtype);
    std::memset(host.bytes(), 0xff, host.num_bytes());
    return on_gpu(host);
  }

 private:
  std::unique_ptr<Stream> stream_;
};

inline Tensor random_f32(const Shape& shape, uint32_t seed, float deviation = 1.0f) {
  Tensor values = Tensor::empty(shape, DType::kF32);
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0.0f, deviation);
  for (int64_t i = 0; i < values.num_elements(); ++i) values.data<float>()[i] = normal(generator);
  return values;
}

// ‖actual − expected‖ / ‖expected‖ over f32 tensors; NaN when anything is NaN.
inline double relative_error(const Tensor& actual, const Tensor& expected) {
  double difference = 0.0, size = 0.0;
  for (int64_t i = 0; i < expected.num_elements(); ++i) {
    const double a = actual.data<float>()[i], e = expected.data<float>()[i];
    difference += (a - e) * (a - e);
    size += e * e;
  }
  return std::sqrt(difference / size);
}

inline bool same_bytes(const Tensor& a, const Tensor& b) {
  return a.num_bytes() == b.num_bytes() && std::memcmp(a.bytes(), b.bytes(), a.num_bytes()) == 0;
}

}  // namespace skipper::cuda
