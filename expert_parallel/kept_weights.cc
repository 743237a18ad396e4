#include "expert_parallel/kept_weights.h"

#include <algorithm>

namespace skipper {

namespace {

float sum_of(std::span<const float> weights, std::span<const int32_t> ids) {
  float sum = 0.0f;
  for (size_t slot = 0; slot < ids.size(); ++slot) {
    if (ids[slot] != kNoExpert) sum += weights[slot];
  }
  return sum;
}

}  // namespace

void renormalize(const TokenPairs& routed, std::span<const int32_t> kept_ids, std::span<float> kept_weights) {
  if (std::ranges::equal(routed.ids, kept_ids)) return;
  const float kept_sum = sum_of(routed.weights, kept_ids);
  if (!(kept_sum > 0.0f)) return;
  const float gain = sum_of(routed.weights, routed.ids) / kept_sum;
  for (float& weight : kept_weights) weight *= gain;
}

}  // namespace skipper
