#include "audit/pair_scores.h"

#include "expert_parallel/token_rules.h"

namespace skipper {

namespace {

std::vector<float> shares_of(const PairShares& shares) {
  std::vector<float> values;
  for (size_t slot = 0; slot < shares.pairs().num_slots(); ++slot) values.push_back(shares[slot]);
  return values;
}

PairScores global_scores(const PairShares& shares, const TokenRules& rules) {
  std::vector<float> scores;
  for (size_t slot = 0; slot < shares.pairs().num_slots(); ++slot) scores.push_back(pair_score(shares, rules, slot));
  return {std::move(scores), rules.tau};
}

PairScores tail_scores(std::vector<float> shares, float beta) {
  for (size_t slot = shares.size(); slot-- > 1;) shares[slot - 1] += shares[slot];
  return {std::move(shares), beta};
}

// Each share, larger the less its expert is like the first; the first's own, and what is like it in nothing, as they are.
PairScores similar_scores(const PairShares& shares, const TokenRules& rules) {
  std::vector<float> scores;
  for (size_t slot = 0; slot < shares.pairs().num_slots(); ++slot) {
    const float similarity = similarity_to_first(shares, rules, slot);
    scores.push_back(slot > 0 && similarity > 0.0f ? shares[slot] / similarity : shares[slot]);
  }
  return {std::move(scores), rules.beta * shares[0]};
}

}  // namespace

PairScores pair_scores(const OperatingPoint& point, const RoutedToken& token) {
  const TokenRules rules = token_rules(point, token.kind);
  const PairShares shares({token.experts, token.weights});
  if (rules.skip_nothing() || rules.is_bypassed || !shares.are_numbers()) return {};
  switch (rules.pair_rule) {
    case PairRule::kScore:
      return global_scores(shares, rules);
    case PairRule::kTailMass:
      return tail_scores(shares_of(shares), rules.beta);
    case PairRule::kRelative:
      return {shares_of(shares), rules.beta * shares[0]};
    case PairRule::kSimilar:
      return similar_scores(shares, rules);
    case PairRule::kTopK:
      break;
  }
  return {{}, rules.kept_k};
}

}  // namespace skipper
