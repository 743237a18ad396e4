#include "kernels/top_k_softmax.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/cpu/row_softmax.h"

namespace skipper::cpu {
namespace {

struct ExponentiateKernel {
  template <int kWidth>
  [[gnu::always_inline]] static void run(float* const& row, int64_t padded, float* const& sum) {
    *sum = exponentiate_row<kWidth>(row, padded);
  }
};

// Softmax over one token's experts in buffers that all tokens share.
class RouterSoftmax {
 public:
  explicit RouterSoftmax(int64_t num_experts)
      : num_experts_(num_experts),
        scores_(static_cast<size_t>(padded_to_lanes(num_experts))),
        order_(static_cast<size_t>(num_experts)) {}

  void load(const float* logits) {
    std::fill(scores_.begin() + num_experts_, scores_.end(), kMinusInfinity);
    for (int64_t e = 0; e < num_experts_; ++e) scores_[index(e)] = std::isnan(logits[e]) ? kMinusInfinity : logits[e];
  }

  // The k experts with the largest logits; equal ones in the order of their ids. A NaN comes after every number, -infinity
  // included.
  std::span<const int32_t> select_top(const float* logits, int64_t k) {
    for (int64_t e = 0; e < num_experts_; ++e) order_[index(e)] = static_cast<int32_t>(e);
    const auto goes_before = [logits](int32_t a, int32_t b) {
      const float x = logits[a], y = logits[b];
      if (std::isnan(x) || std::isnan(y)) return std::isnan(x) == std::isnan(y) ? a < b : std::isnan(y);
      return x != y ? x > y : a < b;
    };
    std::partial_sort(order_.begin(), order_.begin() + k, order_.end(), goes_before);
    return {order_.data(), static_cast<size_t>(k)};
  }

  // Turns the loaded logits into weights; call after load. Returns their sum.
  float exponentiate() {
    const float largest = *std::max_element(scores_.begin(), scores_.begin() + num_experts_);
    // An infinite maximum would give ∞ − ∞: its experts share the weight evenly instead.
    if (std::isinf(largest)) {
      for (int64_t e = 0; e < num_experts_; ++e) scores_[index(e)] = scores_[index(e)] == largest ? 0.0f : kMinusInfinity;
    }
    float sum = 0.0f;
    run_on_best_isa<ExponentiateKernel>(scores_.data(), static_cast<int64_t>(scores_.size()), &sum);
    return sum;
  }

  float weight(int32_t expert) const { return scores_[index(expert)]; }

 private:
  static size_t index(int64_t expert) { return static_cast<size_t>(expert); }

  int64_t num_experts_;
  std::vector<float> scores_;
  std::vector<int32_t> order_;
};

}  // namespace

void top_k_softmax(const Tensor& logits, TopKNormalization normalization, Tensor& expert_ids, Tensor& expert_weights) {
  const int64_t num_experts = logits.dim(1), k = expert_ids.dim(1);
  if (k == 0) return;
  RouterSoftmax softmax(num_experts);
  for (int64_t t = 0; t < logits.dim(0); ++t) {
    softmax.load(logits.row<float>(t));
    float total = softmax.exponentiate();
    const std::span<const int32_t> chosen = softmax.select_top(logits.row<float>(t), k);
    if (normalization == TopKNormalization::kSumToOne) {
      total = 0.0f;
      for (const int32_t expert : chosen) total += softmax.weight(expert);
    }
    for (int64_t j = 0; j < k; ++j) {
      const int32_t expert = chosen[static_cast<size_t>(j)];
      expert_ids.row<int32_t>(t)[j] = expert;
      expert_weights.row<float>(t)[j] = softmax.weight(expert) / total;
    }
  }
}

}  // namespace skipper::cpu
