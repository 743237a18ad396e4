#include "kernels/group_quantizer.h"

#include <glog/logging.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "kernels/cpu/simd.h"

// Candidate scales were chosen by their squared error on normally distributed groups of 32, 64 and 128 weights: with more of
// them the error falls by another 1 % (int4), 2 % (int4a, int3a) and 0.3 % (int2a).

namespace skipper {
namespace {

constexpr int64_t kMaxGroup = 128;

// What a symmetric group's weight of largest magnitude, sign included, is divided by. The negative end of a code range is one
// step longer than the positive one, so the extreme weight takes the code 0 whatever its sign, and the scale takes the sign.
constexpr float kInt8Divisor = 127.0f;
constexpr std::array kInt4Divisors = {-8.0f,  -7.0f,  -7.25f, -7.5f, -7.75f, -8.25f, -8.5f,
                                      -8.75f, -9.0f, -9.25f, -9.5f, -9.75f, -10.0f};
// What an asymmetric group's range is shrunk to: with few codes it pays to clip the extremes.
constexpr std::array kShrinks = {1.0f, 0.95f, 0.9f, 0.85f, 0.8f, 0.75f, 0.7f, 0.65f, 0.6f, 0.55f, 0.5f};
constexpr std::array kZeroShifts = {0, -1, 1};
constexpr int kMaxRefinements = 8;

struct Candidate {
  float scale = 0;  // exactly a BF16
  int zero = 0;

  friend bool operator==(const Candidate&, const Candidate&) = default;
};

// Importance asks for scales that no fixed set holds; without it codes stay what they were at every load.
enum class Search { kFixedCandidates, kRefined };

// A group padded with zeros to whole vectors; zeros are exact in every candidate and add no error.
struct PaddedGroup {
  alignas(64) float weights[kMaxGroup];
  alignas(64) float importance[kMaxGroup];
  int64_t size = 0;  // a multiple of sixteen
};

PaddedGroup padded(std::span<const float> weights, std::span<const float> importance) {
  PaddedGroup group;
  const auto count = static_cast<int64_t>(weights.size());
  group.size = (count + cpu::kLanes - 1) / cpu::kLanes * cpu::kLanes;
  std::copy(weights.begin(), weights.end(), group.weights);
  std::fill(group.weights + count, group.weights + group.size, 0.0f);
  std::copy(importance.begin(), importance.end(), group.importance);
  std::fill(group.importance + importance.size(), group.importance + group.size, 1.0f);
  return group;
}

// The steps from 0 to `weights`, in the code range of the format. No fused operations: the same bits on every CPU.
template <int kWidth>
struct CodeRounder {
  using Lanes = cpu::Lanes<kWidth>;
  using Part = typename Lanes::Part;

  Part scale, lowest, highest;

  [[gnu::always_inline]] CodeRounder(const Candidate& candidate, int num_codes)
      : scale(candidate.scale - Part{}),
        lowest(static_cast<float>(-candidate.zero) - Part{}),
        highest(static_cast<float>(num_codes - 1 - candidate.zero) - Part{}) {}

  [[gnu::always_inline]] Part steps(const Part& weights) const {
    constexpr float kRound = 12582912.0f;  // 1.5 · 2^23: adding and subtracting it rounds to nearest even
    const Part exact = weights / scale;
    const Part bounded = exact < lowest ? lowest : exact;
    return ((bounded > highest ? highest : bounded) + kRound) - kRound;
  }
};

// Σ importance · (weight − rounded)².
struct ErrorKernel {
  template <int kWidth>
  [[gnu::always_inline]] static void run(const PaddedGroup* group, const Candidate* candidate, int num_codes, float* error) {
    using Lanes = cpu::Lanes<kWidth>;
    const CodeRounder<kWidth> rounder(*candidate, num_codes);
    Lanes sum = Lanes::zero();
    for (int64_t i = 0; i < group->size; i += cpu::kLanes) {
      const Lanes weights = Lanes::load(group->weights + i), importance = Lanes::load(group->importance + i);
      for (int p = 0; p < Lanes::kParts; ++p) {
        const auto difference = weights.part[p] - rounder.steps(weights.part[p]) * rounder.scale;
        sum.part[p] = sum.part[p] + importance.part[p] * (difference * difference);
      }
    }
    *error = cpu::sum_of_lanes(sum);
  }
};

// With c the steps that a candidate gives: Σ importance · weight · c and Σ importance · c². Their quotient is the scale of
// least error for these codes.
struct ProjectionKernel {
  template <int kWidth>
  [[gnu::always_inline]] static void run(const PaddedGroup* group, const Candidate* candidate, int num_codes, float* sums) {
    using Lanes = cpu::Lanes<kWidth>;
    const CodeRounder<kWidth> rounder(*candidate, num_codes);
    Lanes products = Lanes::zero(), squares = Lanes::zero();
    for (int64_t i = 0; i < group->size; i += cpu::kLanes) {
      const Lanes weights = Lanes::load(group->weights + i), importance = Lanes::load(group->importance + i);
      for (int p = 0; p < Lanes::kParts; ++p) {
        const auto steps = rounder.steps(weights.part[p]);
        const auto weighed = importance.part[p] * steps;
        products.part[p] = products.part[p] + weighed * weights.part[p];
        squares.part[p] = squares.part[p] + weighed * steps;
      }
    }
    sums[0] = cpu::sum_of_lanes(products);
    sums[1] = cpu::sum_of_lanes(squares);
  }
};

struct CodesKernel {
  template <int kWidth>
  [[gnu::always_inline]] static void run(const PaddedGroup* group, const Candidate* candidate, int num_codes, uint8_t* codes) {
    using Lanes = cpu::Lanes<kWidth>;
    const CodeRounder<kWidth> rounder(*candidate, num_codes);
    for (int64_t i = 0; i < group->size; i += kWidth) {
      typename Lanes::Part weights;
      __builtin_memcpy(&weights, group->weights + i, sizeof(weights));
      const auto whole = __builtin_convertvector(rounder.steps(weights), typename Lanes::IntPart) + candidate->zero;
      typedef uint8_t Bytes __attribute__((vector_size(kWidth)));
      const Bytes bytes = __builtin_convertvector(whole, Bytes);
      __builtin_memcpy(codes + i, &bytes, sizeof(bytes));
    }
  }
};

struct Extremes {
  float lowest = 0, highest = 0;  // the range always holds 0
};

struct ExtremesKernel {
  template <int kWidth>
  [[gnu::always_inline]] static void run(const PaddedGroup* group, Extremes* extremes) {
    using Lanes = cpu::Lanes<kWidth>;
    Lanes highest = Lanes::zero(), lowest_negated = Lanes::zero();
    for (int64_t i = 0; i < group->size; i += cpu::kLanes) {
      const Lanes weights = Lanes::load(group->weights + i);
      highest = highest.max(weights);
      lowest_negated = lowest_negated.max(Lanes::zero() - weights);
    }
    *extremes = {-cpu::max_of_lanes(lowest_negated), cpu::max_of_lanes(highest)};
  }
};

float rounded_to_bf16(float value) { return static_cast<float>(bf16(value)); }

// The candidate of least error so far; of equal ones the first.
class BestCandidate {
 public:
  BestCandidate(const PaddedGroup& group, int num_codes) : group_(group), num_codes_(num_codes) {}

  void consider(const Candidate& candidate) {
    if (candidate.scale == 0) return;
    float error = 0;
    cpu::run_on_best_isa<ErrorKernel>(&group_, &candidate, num_codes_, &error);
    if (best_.scale != 0 && !(error < least_error_)) return;
    best_ = candidate;
    least_error_ = error;
  }

  const Candidate& get() const { return best_; }
  int num_codes() const { return num_codes_; }

  // The scale of least error for the codes of the best candidate; 0 when there is none.
  float projected_scale() const {
    float sums[2];
    cpu::run_on_best_isa<ProjectionKernel>(&group_, &best_, num_codes_, +sums);
    const float scale = rounded_to_bf16(sums[0] / sums[1]);
    return std::isfinite(scale) ? scale : 0.0f;
  }

 private:
  const PaddedGroup& group_;
  const int num_codes_;
  Candidate best_;
  float least_error_ = std::numeric_limits<float>::infinity();
};

void consider_symmetric(const Extremes& extremes, std::span<const float> divisors, BestCandidate& best) {
  const float extreme = -extremes.lowest > extremes.highest ? extremes.lowest : extremes.highest;
  for (const float divisor : divisors) best.consider({rounded_to_bf16(extreme / divisor), best.num_codes() / 2});
}

void consider_asymmetric(const Extremes& extremes, BestCandidate& best) {
  const int num_codes = best.num_codes();
  const float num_steps = static_cast<float>(num_codes - 1);
  const float widest_scale = extremes.highest / num_steps - extremes.lowest / num_steps;
  const auto num_shifts = static_cast<size_t>(num_codes == 4 ? 3 : 1);  // with four codes the zero point is coarse, too
  for (const float shrink : kShrinks) {
    const float scale = rounded_to_bf16(widest_scale * shrink);
    if (scale == 0) continue;
    const float exact_zero = std::min(-extremes.lowest * shrink / scale, num_steps);
    for (const int shift : std::span(kZeroShifts).first(num_shifts)) {
      best.consider({scale, std::clamp(static_cast<int>(exact_zero + 0.5f) + shift, 0, num_codes - 1)});
    }
  }
}

// From the best of the fixed candidates to one that suits the importance: in turn the scale that is best for the codes and the
// zero point beside, with the codes that are best for them, while the error falls.
void refine(const WeightFormat& format, BestCandidate& best) {
  for (int round = 0; round < kMaxRefinements; ++round) {
    const Candidate before = best.get();
    best.consider({best.projected_scale(), before.zero});
    if (format.is_asymmetric()) {
      for (const int shift : {-1, 1}) {
        const Candidate now = best.get();
        best.consider({now.scale, std::clamp(now.zero + shift, 0, best.num_codes() - 1)});
      }
    }
    if (best.get() == before) return;
  }
}

Candidate best_candidate(const PaddedGroup& group, const WeightFormat& format, Search search) {
  Extremes extremes;
  cpu::run_on_best_isa<ExtremesKernel>(&group, &extremes);
  BestCandidate best(group, 1 << format.bits_per_code());
  if (format.is_asymmetric()) {
    consider_asymmetric(extremes, best);
  } else if (format.kind == WeightKind::kInt4) {
    consider_symmetric(extremes, kInt4Divisors, best);
  } else if (search == Search::kFixedCandidates) {
    // One candidate needs no error.
    return {rounded_to_bf16(std::max(-extremes.lowest, extremes.highest) / kInt8Divisor), best.num_codes() / 2};
  } else {
    best.consider({rounded_to_bf16(std::max(-extremes.lowest, extremes.highest) / kInt8Divisor), best.num_codes() / 2});
  }
  if (search == Search::kRefined && best.get().scale != 0) refine(format, best);
  return best.get();
}

}  // namespace

GroupCodes quantize_group(std::span<const float> weights, std::span<const float> importance, const WeightFormat& format,
                          std::span<uint8_t> codes) {
  CHECK(format.is_integer());
  CHECK_LE(weights.size(), static_cast<size_t>(kMaxGroup));
  CHECK_EQ(weights.size(), codes.size());
  CHECK(importance.empty() || importance.size() == weights.size());
  const PaddedGroup group = padded(weights, importance);
  const Candidate best = best_candidate(group, format, importance.empty() ? Search::kFixedCandidates : Search::kRefined);
  const int num_codes = 1 << format.bits_per_code();
  const int zero = format.is_asymmetric() ? best.zero : num_codes / 2;
  if (best.scale == 0) {
    std::ranges::fill(codes, static_cast<uint8_t>(zero));
    return {bf16(0.0f), static_cast<uint8_t>(zero)};
  }
  alignas(64) uint8_t padded_codes[kMaxGroup];
  cpu::run_on_best_isa<CodesKernel>(&group, &best, num_codes, +padded_codes);
  std::copy_n(padded_codes, codes.size(), codes.begin());
  return {bf16(best.scale), static_cast<uint8_t>(zero)};
}

}  // namespace skipper
