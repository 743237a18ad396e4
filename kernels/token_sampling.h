// From the logits of one row to the next token: the definition that every device computes to the same token.
//
// Forbidden tokens and NaN count as −infinity. Where nothing else is left, the largest original logit wins. Greedy rows take the
// largest logit, the lowest id of equals. For others, with T the temperature:
//
//   distance  = (largest logit − logit) · (2²⁴ · log₂ e / T), two FP32 operations, cut to an integer: units of 2⁻²⁴ bits
//   weight    = 2^(40 − distance / 2²⁴) as an integer, from 2⁴⁰ for the largest logit down to 1; tokens beyond are impossible
//   order     = by distance, then by id
//   top-k     keeps the first k in this order
//   top-p     of these the shortest beginning whose weights sum to at least ⌈p · sum of all⌉ (Holtzman et al. 2020)
//   the draw  is the first id, ascending, at which the sum of the kept weights exceeds ⌊random · their sum / 2⁶⁴⌋
//
// All sums are of integers, and so exact in any order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace skipper {

// temperature 0, top_k 1 and top_p 0 are greedy; top_k 0 and top_p 1 are off.
struct TokenSampling {
  float temperature = 0.0f;
  float top_p = 1.0f;
  int32_t top_k = 0;
  uint64_t random = 0;                  // 64 random bits of this draw
  std::span<const int32_t> forbidden{};  // ids; those outside the vocabulary do no harm

  bool is_greedy() const { return temperature <= 0.0f || top_k == 1 || top_p <= 0.0f; }
};

// The token's id; logits are overwritten where tokens are forbidden.
int32_t sample_token(std::span<float> logits, const TokenSampling& sampling);

// Of the largest logit, the lowest of equals; NaN is as small as −infinity.
int32_t largest_logit(std::span<const float> logits);

// A sampling as device data.
struct PackedTokenSampling {
  static constexpr size_t kMostForbidden = 10;

  static bool can_hold(const TokenSampling& sampling) { return sampling.forbidden.size() <= kMostForbidden; }

  uint64_t random = 0;
  float temperature = 0.0f;  // 0: greedy, whatever the rest says
  float top_p = 1.0f;
  int32_t top_k = 0;
  int32_t num_forbidden = 0;
  int32_t forbidden[kMostForbidden] = {};
};
static_assert(sizeof(PackedTokenSampling) == 64);

PackedTokenSampling packed(const TokenSampling& sampling);

}  // namespace skipper
