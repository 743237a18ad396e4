#include "machine/product_rate.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <random>

namespace skipper {
namespace {

constexpr int64_t kSize = 2048;
constexpr int64_t kNumRows = 256;
constexpr size_t kReadBytes = size_t{128} << 20;

// Uniform numbers of a size that products keep.
Tensor random_matrix(int64_t rows, DType dtype, uint32_t seed) {
  Tensor matrix = Tensor::empty({rows, kSize}, dtype);
  std::mt19937 random(seed);
  const float scale = 2.0f / std::sqrt(static_cast<float>(kSize));
  for (int64_t i = 0; i < matrix.num_elements(); ++i) {
    const float value = scale * (static_cast<float>(random()) / 4294967296.0f - 0.5f);
    if (dtype == DType::kBF16) {
      matrix.data<bf16>()[i] = bf16(value);
    } else {
      matrix.data<float>()[i] = value;
    }
  }
  return matrix;
}

PackedMatrix copy_of(const PackedMatrix& packed) {
  PackedMatrix copy = empty_packed(packed.format, {.num_rows = packed.num_rows, .num_columns = packed.num_columns});
  std::copy_n(packed.codes.bytes(), packed.codes.num_bytes(), copy.codes.bytes());
  if (packed.scales.defined()) std::copy_n(packed.scales.bytes(), packed.scales.num_bytes(), copy.scales.bytes());
  if (packed.zeros.defined()) std::copy_n(packed.zeros.bytes(), packed.zeros.num_bytes(), copy.zeros.bytes());
  copy.activations = packed.activations;
  return copy;
}

template <typename Work>
double seconds_of(const Work& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  return elapsed.count();
}

}  // namespace

ProductRate::ProductRate(const WeightFormat& format, ThreadPool& workers)
    : stream_(workers),
      row_(random_matrix(1, DType::kF32, 1)),
      row_product_(Tensor::empty({1, kSize}, DType::kF32)),
      rows_(random_matrix(kNumRows, DType::kF32, 2)),
      rows_product_(Tensor::empty({kNumRows, kSize}, DType::kF32)) {
  weights_.push_back({pack(random_matrix(kSize, DType::kBF16, 3), format), {}});
  const size_t count = kReadBytes / weights_[0].weight.num_bytes() + 1;
  while (weights_.size() < count) weights_.push_back({copy_of(weights_[0].weight), {}});
}

double ProductRate::measure_row_seconds() {
  return seconds_of([&] {
    for (const PackedLinear& weight : weights_) linear(row_, weight, row_product_, stream_);
  });
}

size_t ProductRate::num_bytes() const { return weights_.size() * weights_[0].weight.num_bytes(); }

double ProductRate::measure_tile_seconds() {
  return seconds_of([&] { linear(rows_, weights_[0], rows_product_, stream_); });
}

double ProductRate::num_operations() const { return 2.0 * static_cast<double>(kNumRows * kSize * kSize); }

}  // namespace skipper
