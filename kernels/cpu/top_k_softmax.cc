#include "kernels/top_k_softmax.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <span>
#include <vector>

#include "kernels/cpu/row_pieces.h"
#include "kernels/cpu/row_softmax.h"

namespace skipper::cpu {
namespace {

// A logit and its expert as one number, never 0; the larger number goes first. The upper half orders the values, NaN below
// all others; the lower half orders equal values by ascending expert.
[[gnu::always_inline]] inline uint64_t key_of(float logit, uint32_t expert) {
  const float value = logit + 0.0f;  // -0 and +0 are equal: both become +0
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t magnitude = bits & 0x7fffffffu;
  const uint32_t ordered = (bits >> 31) != 0 ? ~bits : bits | 0x80000000u;
  return uint64_t{magnitude > 0x7f800000u ? 1u : ordered} << 32 | ~expert;
}
[[gnu::always_inline]] inline uint32_t expert_of(uint64_t key) { return ~static_cast<uint32_t>(key); }

// Experts are searched in blocks: after a choice only its block has a new largest key.
constexpr int64_t kBlock = 64;

// What the choice of one token needs.
struct Keys {
  const float* logits;
  int64_t num_experts;
  int64_t num_blocks;
  uint64_t* key;      // [blocks · kBlock], zero beyond the experts
  uint64_t* largest;  // [blocks], of the keys not chosen yet
};

// As many keys as fit one register.
template <int kWidth>
struct KeyRegister;
template <>
struct KeyRegister<16> {
  typedef uint64_t Keys __attribute__((vector_size(64)));
};
template <>
struct KeyRegister<8> {
  typedef uint64_t Keys __attribute__((vector_size(32)));
};
template <>
struct KeyRegister<4> {
  typedef uint64_t Keys __attribute__((vector_size(16)));
};

struct SelectKernel {
  template <int kWidth>
  [[gnu::always_inline]] static void run(const Keys& keys, int64_t k, int32_t* const& chosen) {
    make_keys(keys.logits, keys.num_experts, keys.key);
    std::fill(keys.key + keys.num_experts, keys.key + keys.num_blocks * kBlock, 0);
    for (int64_t b = 0; b < keys.num_blocks; ++b) keys.largest[b] = largest_below<kWidth>(keys.key + b * kBlock, ~uint64_t{0});
    for (int64_t j = 0; j < k; ++j) {
      const uint64_t key = *std::max_element(keys.largest, keys.largest + keys.num_blocks);
      const uint32_t expert = expert_of(key);
      chosen[j] = static_cast<int32_t>(expert);
      const int64_t block = expert / kBlock;
      keys.largest[block] = largest_below<kWidth>(keys.key + block * kBlock, key);
    }
  }

  [[gnu::always_inline]] static void make_keys(const float* logits, int64_t num_experts, uint64_t* keys) {
    for (int64_t e = 0; e < num_experts; ++e) keys[e] = key_of(logits[e], static_cast<uint32_t>(e));
  }

  // Of one block; 0 if there is none. No key equals another, so the next choice is the largest key below the last one: taking
  // that out of the list instead would make the vector loads wait for the store.
  template <int kWidth>
  [[gnu::always_inline]] static uint64_t largest_below(const uint64_t* keys, uint64_t bound) {
    using Vector = typename KeyRegister<kWidth>::Keys;
    constexpr int kPerVector = kWidth / 2;
    Vector largest{};
    for (int64_t i = 0; i < kBlock; i += kPerVector) {
      Vector key;
      __builtin_memcpy(&key, keys + i, sizeof(key));
      key = key < bound ? key : Vector{};
      largest = key > largest ? key : largest;
    }
    uint64_t all[kPerVector];
    __builtin_memcpy(all, &largest, sizeof(all));
    for (int i = 1; i < kPerVector; ++i) all[0] = all[i] > all[0] ? all[i] : all[0];
    return all[0];
  }
};

struct ExponentiateKernel {
  template <int kWidth>
  [[gnu::always_inline]] static void run(float* const& row, int64_t padded, float* const& sum) {
    *sum = exponentiate_row<kWidth>(row, padded);
  }
};

// Softmax over one token's experts in buffers that all tokens of a thread share.
class RouterSoftmax {
 public:
  void resize(int64_t num_experts) {
    num_experts_ = num_experts;
    largest_.resize(static_cast<size_t>((num_experts + kBlock - 1) / kBlock));
    keys_.resize(largest_.size() * kBlock);
    scores_.resize(static_cast<size_t>(padded_to_lanes(num_experts)));
  }

  // The k experts with the largest logits; equal ones in the order of their ids. A NaN comes after every number, -infinity
  // included.
  void select_top(const float* logits, int64_t k, int32_t* chosen) {
    const Keys keys{logits, num_experts_, static_cast<int64_t>(largest_.size()), keys_.data(), largest_.data()};
    run_on_best_isa<SelectKernel>(keys, k, chosen);
  }

  // weights[j] = softmax over all experts, of the chosen ones.
  void weigh_among_all(const float* logits, std::span<const int32_t> chosen, float* weights) {
    for (int64_t e = 0; e < num_experts_; ++e) scores_[static_cast<size_t>(e)] = logits[e];
    const float total = exponentiate(num_experts_);
    for (size_t j = 0; j < chosen.size(); ++j) weights[j] = scores_[static_cast<size_t>(chosen[j])] / total;
  }

  // weights[j] = softmax over the chosen experts alone: their probabilities among all, divided by the sum of these. The
  // largest logit is among them, so that the exponentials are the same.
  void weigh_among_chosen(const float* logits, std::span<const int32_t> chosen, float* weights) {
    for (size_t j = 0; j < chosen.size(); ++j) scores_[j] = logits[chosen[j]];
    exponentiate(static_cast<int64_t>(chosen.size()));
    float total = 0.0f;
    for (size_t j = 0; j < chosen.size(); ++j) total += scores_[j];
    for (size_t j = 0; j < chosen.size(); ++j) weights[j] = scores_[j] / total;
  }

 private:
  // Turns the first `count` scores into exponentials and returns their sum.
  float exponentiate(int64_t count) {
    const auto scores = std::span(scores_).first(static_cast<size_t>(count));
    for (float& score : scores) score = std::isnan(score) ? kMinusInfinity : score;
    const float largest = *std::max_element(scores.begin(), scores.end());
    // An infinite maximum would give ∞ − ∞: its experts share the weight evenly instead.
    if (std::isinf(largest)) {
      for (float& score : scores) score = score == largest ? 0.0f : kMinusInfinity;
    }
    const int64_t padded = padded_to_lanes(count);
    std::fill(scores_.begin() + count, scores_.begin() + padded, kMinusInfinity);
    float sum = 0.0f;
    run_on_best_isa<ExponentiateKernel>(scores_.data(), padded, &sum);
    return sum;
  }

  int64_t num_experts_ = 0;
  std::vector<uint64_t> keys_;
  std::vector<uint64_t> largest_;
  std::vector<float> scores_;
};

}  // namespace

void top_k_softmax(const Tensor& logits, TopKNormalization normalization, Tensor& expert_ids, Tensor& expert_weights,
                   ThreadPool& workers) {
  const int64_t num_experts = logits.dim(1), k = expert_ids.dim(1);
  if (k == 0) return;
  const int64_t row_bytes = 32 * num_experts + 256 * k;  // what a copy would move in a token's time
  for_row_pieces(workers, {logits.dim(0), row_bytes}, [&](int64_t begin, int64_t end) {
    static thread_local RouterSoftmax softmax;
    softmax.resize(num_experts);
    for (int64_t t = begin; t < end; ++t) {
      const float* row = logits.row<float>(t);
      int32_t* ids = expert_ids.row<int32_t>(t);
      softmax.select_top(row, k, ids);
      const std::span<const int32_t> chosen(ids, static_cast<size_t>(k));
      if (normalization == TopKNormalization::kNone) {
        softmax.weigh_among_all(row, chosen, expert_weights.row<float>(t));
      } else {
        softmax.weigh_among_chosen(row, chosen, expert_weights.row<float>(t));
      }
    }
  });
}

}  // namespace skipper::cpu
