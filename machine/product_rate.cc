#include "machine/product_rate.h"

#include <algorithm>
#include <chrono>

#include "machine/random_matrix.h"

namespace skipper {
namespace {

constexpr int64_t kSize = 2048;
constexpr int64_t kNumRows = 256;
constexpr size_t kReadBytes = size_t{128} << 20;

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
      row_(random_matrix({1, kSize}, DType::kF32, 1)),
      row_product_(Tensor::empty({1, kSize}, DType::kF32)),
      rows_(random_matrix({kNumRows, kSize}, DType::kF32, 2)),
      rows_product_(Tensor::empty({kNumRows, kSize}, DType::kF32)) {
  weights_.push_back({pack(random_matrix({kSize, kSize}, DType::kBF16, 3), format), {}});
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
