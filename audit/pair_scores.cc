#include "audit/pair_scores.h"

#include <numeric>

namespace skipper {

namespace {

float beta_of(const OperatingPoint& point, const RoutedToken& token) {
  const std::vector<float>& beta = point.beta[static_cast<size_t>(token.token_class)];
  return beta.empty() ? 0.0f : beta[static_cast<size_t>(token.moe_layer)];
}

float tau_of(const OperatingPoint& point, const RoutedToken& token) {
  const bool is_generated_text = token.token_class == TokenClass::kText && token.phase == TokenPhase::kGenerated;
  if (is_generated_text && point.tau_generated) return *point.tau_generated;
  return point.tau[static_cast<size_t>(token.token_class)];
}

std::vector<float> normalized(std::span<const float> weights) {
  const float sum = std::accumulate(weights.begin(), weights.end(), 0.0f) + 1e-20f;
  std::vector<float> shares;
  for (const float weight : weights) shares.push_back(weight / sum);
  return shares;
}

PairScores global_scores(const OperatingPoint& point, const RoutedToken& token, std::vector<float> shares) {
  const float alpha = point.alpha[static_cast<size_t>(token.token_class)][static_cast<size_t>(token.moe_layer)];
  const size_t num_layers = point.alpha[0].size();
  for (size_t j = 0; j < shares.size(); ++j) {
    shares[j] *= alpha;
    if (point.expert_scale.empty()) continue;
    const size_t num_experts = point.expert_scale.size() / num_layers;
    shares[j] *= point.expert_scale[static_cast<size_t>(token.moe_layer) * num_experts + static_cast<size_t>(token.experts[j])];
  }
  return {std::move(shares), tau_of(point, token)};
}

PairScores tail_scores(const OperatingPoint& point, const RoutedToken& token, std::vector<float> shares) {
  for (size_t j = shares.size(); j-- > 1;) shares[j - 1] += shares[j];
  return {std::move(shares), beta_of(point, token)};
}

}  // namespace

PairScores pair_scores(const OperatingPoint& point, const RoutedToken& token) {
  if (token.token_class == TokenClass::kProtected) return {};
  std::vector<float> shares = normalized(token.weights);
  switch (point.pair_rule) {
    case PairRule::kScore:
      return global_scores(point, token, std::move(shares));
    case PairRule::kTailMass:
      return tail_scores(point, token, std::move(shares));
    case PairRule::kRelative: {
      const float threshold = shares.empty() ? 0.0f : beta_of(point, token) * shares.front();
      return {std::move(shares), threshold};
    }
    case PairRule::kTopK:
      break;
  }
  return {{}, point.kept_k[static_cast<size_t>(token.token_class)]};
}

}  // namespace skipper
