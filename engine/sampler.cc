#include "engine/sampler.h"

#include <algorithm>
#include <cmath>

namespace skipper {
namespace {

// The finaliser of SplitMix64 (Steele et al. 2014): every input bit reaches every output bit.
uint64_t mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

}  // namespace

TokenSampling next_token_sampling(const GenerationRequest& request, int32_t num_generated) {
  const SamplingParams& params = request.sampling;
  TokenSampling sampling{.temperature = params.temperature,
                         .top_p = params.top_p,
                         .top_k = params.top_k,
                         .random = random_bits(params.seed, params.choice, num_generated)};
  if (num_generated < request.min_new_tokens) sampling.forbidden = request.stop_token_ids;
  return sampling;
}

uint64_t random_bits(uint64_t seed, int32_t choice, int32_t position) {
  const uint64_t place = (static_cast<uint64_t>(static_cast<uint32_t>(choice)) << 32) | static_cast<uint32_t>(position);
  return mix(mix(seed) ^ place);
}

double log_sum_exp(std::span<const float> logits) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0.0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - largest);
  return std::log(sum) + largest;
}

double negative_log_likelihood(std::span<const float> logits, int32_t token) {
  return log_sum_exp(logits) - static_cast<double>(logits[static_cast<size_t>(token)]);
}

}  // namespace skipper
