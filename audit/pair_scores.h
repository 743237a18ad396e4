// The numbers that a pair rule compares: they tell the reader of an audit how close a decision was.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "cluster/operating_point.h"
#include "expert_parallel/token_rules.h"

namespace skipper {

// One token at one MoE layer.
struct RoutedToken {
  TokenKind kind;
  std::span<const int32_t> experts;  // largest weight first
  std::span<const float> weights;
};

struct PairScores {
  std::vector<float> scores;  // one per slot; empty where nothing is compared
  float threshold = 0.0f;     // a score under it is skipped, exceptions aside (OperatingPoint::protect_top1 and others)
};

// kScore: alpha · scale · p and tau. kTailMass: what is left from a slot on, and beta. kRelative: p and beta · p_1.
// kSimilar: p / similarity and beta · p_1. kTopK
// compares nothing; its threshold is the number of slots kept. A token that no rule may touch has neither.
PairScores pair_scores(const OperatingPoint& point, const RoutedToken& token);

}  // namespace skipper
