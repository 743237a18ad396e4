#include "expert_parallel/pair_rule.h"

#include <bit>
#include <cmath>

namespace skipper {

namespace {

// The finalizer of SplitMix64: every input bit changes every output bit with a chance of one half.
uint64_t mix(uint64_t bits) {
  bits += 0x9e3779b97f4a7c15;
  bits = (bits ^ (bits >> 30)) * 0xbf58476d1ce4e5b9;
  bits = (bits ^ (bits >> 27)) * 0x94d049bb133111eb;
  return bits ^ (bits >> 31);
}

// A number in [0, 1) that is the token's own.
float own_fraction(const TokenPairs& pairs) {
  uint64_t hash = 0;
  for (const float weight : pairs.weights) hash = mix(hash ^ std::bit_cast<uint32_t>(weight));
  return static_cast<float>(hash >> 40) * 0x1p-24f;
}

size_t num_kept_slots(const PairShares& shares, float kept_k) {
  const float whole = std::floor(kept_k);
  const float fraction = kept_k - whole;
  return static_cast<size_t>(whole) + (own_fraction(shares.pairs()) < fraction ? 1 : 0);
}

// The first slot that is skipped with all after it.
size_t tail_begin(const PairShares& shares, float beta) {
  size_t begin = shares.pairs().num_slots();
  float mass = 0.0f;
  while (begin > 0) {
    mass = begin == 1 ? 1.0f : mass + shares[begin - 1];
    if (!(mass < beta)) break;
    --begin;
  }
  return begin;
}

// Whether the first expert says what this one would, for what little it has to say.
bool is_like_first(const PairShares& shares, const TokenRules& rules, size_t slot) {
  return slot > 0 && shares[slot] < rules.beta * similarity_to_first(shares, rules, slot) * shares[0];
}

}  // namespace

void apply_pair_rule(const PairShares& shares, const TokenRules& rules, const Destinations& destinations,
                     std::span<int32_t> kept_ids) {
  const auto skip_where = [&](const auto& is_skipped) {
    for (size_t slot = 0; slot < kept_ids.size(); ++slot) {
      if (kept_ids[slot] == kNoExpert || !is_skipped(slot) || is_spared(shares, rules, slot)) continue;
      if (rules.exempt_local && destinations.is_own(kept_ids[slot])) continue;
      kept_ids[slot] = kNoExpert;
    }
  };
  const auto skip_from = [&](size_t first) { skip_where([&](size_t slot) { return slot >= first; }); };
  switch (rules.pair_rule) {
    case PairRule::kScore:
      if (rules.tau > 0.0f) skip_where([&](size_t slot) { return pair_score(shares, rules, slot) < rules.tau; });
      break;
    case PairRule::kTopK:
      if (rules.kept_k > 0.0f) skip_from(num_kept_slots(shares, rules.kept_k));
      break;
    case PairRule::kTailMass:
      if (rules.beta > 0.0f) skip_from(tail_begin(shares, rules.beta));
      break;
    case PairRule::kRelative:
      if (rules.beta > 0.0f) skip_where([&](size_t slot) { return shares[slot] < rules.beta * shares[0]; });
      break;
    case PairRule::kSimilar:
      if (rules.beta > 0.0f) skip_where([&](size_t slot) { return is_like_first(shares, rules, slot); });
      break;
  }
}

}  // namespace skipper
