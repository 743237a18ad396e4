// Random operands for kernel tests, their values as doubles, and comparison with an oracle in double precision.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "tensor/device_runtime.h"
#include "tensor/tensor.h"

namespace skipper {

// Normally distributed, rounded to `dtype` (bf16 or f32).
inline Tensor random_tensor(const Shape& shape, DType dtype, uint32_t seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  Tensor tensor = Tensor::empty(shape, dtype);
  for (int64_t i = 0; i < tensor.num_elements(); ++i) {
    const float value = normal(generator);
    if (dtype == DType::kBF16) {
      tensor.data<bf16>()[i] = bf16(value);
    } else {
      tensor.data<float>()[i] = value;
    }
  }
  return tensor;
}

inline Tensor index_tensor(const std::vector<int32_t>& values) {
  Tensor tensor = Tensor::empty({static_cast<int64_t>(values.size())}, DType::kI32);
  if (!values.empty()) std::memcpy(tensor.bytes(), values.data(), tensor.num_bytes());
  return tensor;
}

inline std::vector<double> as_doubles(const Tensor& tensor) {
  std::vector<double> values(static_cast<size_t>(tensor.num_elements()));
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] =
        tensor.dtype() == DType::kBF16 ? double{static_cast<float>(tensor.data<bf16>()[i])} : double{tensor.data<float>()[i]};
  }
  return values;
}

// |actual − expected| <= tolerance · (1 + |expected|) for every element.
inline void expect_close(const Tensor& actual, const std::vector<double>& expected, double tolerance) {
  const std::vector<double> values = as_doubles(actual);
  ASSERT_EQ(values.size(), expected.size());
  for (size_t i = 0; i < values.size(); ++i) {
    ASSERT_LE(std::abs(values[i] - expected[i]), tolerance * (1.0 + std::abs(expected[i])))
        << "element " << i << " is " << values[i] << ", expected " << expected[i];
  }
}

inline bool same_bits(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && a.dtype() == b.dtype() &&
         (a.num_bytes() == 0 || std::memcmp(a.bytes(), b.bytes(), a.num_bytes()) == 0);
}

// compute(stream) returns the kernel's results: the same bits with pools of 1, 2 and 3 threads.
template <typename Compute>
void expect_same_bits_on_any_number_of_threads(const Compute& compute) {
  ThreadPool one_thread(1);
  Stream alone(one_thread);
  const Tensor expected = compute(alone);
  for (const int num_threads : {2, 3}) {
    ThreadPool workers(num_threads);
    Stream stream(workers);
    EXPECT_TRUE(same_bits(compute(stream), expected)) << num_threads << " threads";
  }
}

// The element types of weights, each with the tolerance of kernels that read them. Oracles start from the rounded
// weights, so both are FP32 rounding of sums of a few hundred terms.
struct WeightType {
  DType dtype;
  double tolerance;
};
inline const WeightType kWeightTypes[] = {{DType::kF32, 2e-5}, {DType::kBF16, 2e-5}};

inline std::string name_of_weight_type(const testing::TestParamInfo<WeightType>& info) {
  return std::string(name_of(info.param.dtype));
}

}  // namespace skipper
