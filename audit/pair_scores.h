// The numbers that a pair rule compares, for people who read an audit; replay decides anew and does not use them.
#pragma once

#include <span>
#include <vector>

#include "cluster/operating_point.h"

namespace skipper {

// One token at one MoE layer.
struct RoutedToken {
  int moe_layer = 0;
  TokenClass token_class = TokenClass::kText;
  TokenPhase phase = TokenPhase::kPrompt;
  std::span<const int32_t> experts;  // largest weight first, without kNoExpert
  std::span<const float> weights;
};

struct PairScores {
  std::vector<float> scores;  // one per slot; empty for protected tokens and for PairRule::kTopK, which compare nothing
  float threshold = 0.0f;     // a score under it is skipped, exceptions aside (OperatingPoint::protect_top1 and others)
};

// kScore: alpha · scale · p and tau. kTailMass: what is left from slot j on, and beta. kRelative: p and beta · p_1. kTopK: the
// number of slots kept as the threshold.
PairScores pair_scores(const OperatingPoint& point, const RoutedToken& token);

}  // namespace skipper
