#include "kernels/token_sampling.h"

#include <glog/logging.h>

#include <algorithm>
#include <cmath>
#include <compare>
#include <limits>
#include <vector>

#include "kernels/token_weight.h"

namespace skipper {
namespace {

using namespace token_sampling;

constexpr float kNever = -std::numeric_limits<float>::infinity();

struct Candidate {
  uint32_t distance = 0;
  int32_t id = 0;

  auto operator<=>(const Candidate&) const = default;
};

uint64_t sum_of_weights(std::span<const Candidate> candidates) {
  uint64_t sum = 0;
  for (const Candidate& candidate : candidates) sum += weight_of(candidate.distance);
  return sum;
}

// Of all possible tokens, by ascending id.
std::vector<Candidate> candidates_of(std::span<const float> logits, float largest, float temperature) {
  const float units_per_logit = kUnitsPerNat / temperature;
  std::vector<Candidate> candidates;
  candidates.reserve(logits.size());
  for (size_t id = 0; id < logits.size(); ++id) {
    const uint32_t distance = distance_of(logits[id], largest, units_per_logit);
    if (distance != kImpossible) candidates.push_back({distance, static_cast<int32_t>(id)});
  }
  return candidates;
}

void keep_up_to(std::vector<Candidate>& candidates, const Candidate& last) {
  std::erase_if(candidates, [&](const Candidate& candidate) { return candidate > last; });
}

void keep_top_k(std::vector<Candidate>& candidates, size_t top_k) {
  if (top_k >= candidates.size()) return;
  std::vector<Candidate> ordered = candidates;
  const auto last = ordered.begin() + static_cast<ptrdiff_t>(top_k) - 1;
  std::ranges::nth_element(ordered, last);
  keep_up_to(candidates, *last);
}

void keep_top_p(std::vector<Candidate>& candidates, float top_p) {
  std::vector<Candidate> ordered = candidates;
  std::ranges::sort(ordered);
  const double wanted = static_cast<double>(top_p) * static_cast<double>(sum_of_weights(ordered));
  const auto goal = static_cast<uint64_t>(std::ceil(wanted));
  uint64_t sum = 0;
  for (const Candidate& candidate : ordered) {
    sum += weight_of(candidate.distance);
    if (sum >= goal) return keep_up_to(candidates, candidate);
  }
}

// ⌊random · sum / 2⁶⁴⌋
uint64_t share_of(uint64_t sum, uint64_t random) {
  const uint64_t low = (sum & 0xffffffffu) * (random & 0xffffffffu);
  const uint64_t first = (sum >> 32) * (random & 0xffffffffu), second = (sum & 0xffffffffu) * (random >> 32);
  const uint64_t carry = ((low >> 32) + (first & 0xffffffffu) + (second & 0xffffffffu)) >> 32;
  return (sum >> 32) * (random >> 32) + (first >> 32) + (second >> 32) + carry;
}

int32_t draw(std::span<const Candidate> candidates, uint64_t random) {
  const uint64_t drawn = share_of(sum_of_weights(candidates), random);
  uint64_t sum = 0;
  for (const Candidate& candidate : candidates) {
    sum += weight_of(candidate.distance);
    if (sum > drawn) return candidate.id;
  }
  LOG(FATAL) << "a draw of " << drawn << " from weights that sum to " << sum;
}

}  // namespace

int32_t largest_logit(std::span<const float> logits) {
  size_t best = 0;
  float largest = kNever;
  for (size_t id = 0; id < logits.size(); ++id) {
    if (logits[id] <= largest || std::isnan(logits[id])) continue;
    largest = logits[id];
    best = id;
  }
  return static_cast<int32_t>(best);
}

int32_t sample_token(std::span<float> logits, const TokenSampling& sampling) {
  const int32_t fallback = largest_logit(logits);
  for (const int32_t id : sampling.forbidden) {
    if (id >= 0 && static_cast<size_t>(id) < logits.size()) logits[static_cast<size_t>(id)] = kNever;
  }
  const int32_t best = largest_logit(logits);
  const float largest = logits[static_cast<size_t>(best)];
  if (!(largest > kNever)) return fallback;
  if (sampling.is_greedy()) return best;
  std::vector<Candidate> candidates = candidates_of(logits, largest, sampling.temperature);
  if (sampling.top_k > 0) keep_top_k(candidates, static_cast<size_t>(sampling.top_k));
  if (sampling.top_p < 1.0f) keep_top_p(candidates, sampling.top_p);
  return draw(candidates, sampling.random);
}

PackedTokenSampling packed(const TokenSampling& sampling) {
  CHECK(PackedTokenSampling::can_hold(sampling)) << sampling.forbidden.size() << " forbidden tokens";
  PackedTokenSampling result{.random = sampling.random,
                             .temperature = sampling.is_greedy() ? 0.0f : sampling.temperature,
                             .top_p = sampling.top_p,
                             .top_k = std::max(sampling.top_k, 0),
                             .num_forbidden = static_cast<int32_t>(sampling.forbidden.size())};
  std::ranges::copy(sampling.forbidden, result.forbidden);
  return result;
}

}  // namespace skipper
