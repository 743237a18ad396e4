// What an operating point asks of one token in one MoE layer, and what the rules that answer see of the token.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "cluster/cluster_topology.h"
#include "cluster/operating_point.h"
#include "expert_parallel/expert_placement.h"
#include "expert_parallel/routing.h"
#include "expert_parallel/token_policies.h"
#include "tensor/tensor.h"

namespace skipper {

// One token's slots of a routing, largest weight first as the router leaves them.
struct TokenPairs {
  std::span<const int32_t> ids;    // kNoExpert = none
  std::span<const float> weights;  // beside them

  size_t num_slots() const { return ids.size(); }
};

TokenPairs pairs_of(const Routing& routing, int64_t token);

// p of each slot: its weight divided by the sum over all slots, before any rule. FP32, summed in slot order.
class PairShares {
 public:
  explicit PairShares(const TokenPairs& pairs);

  float operator[](size_t slot) const { return pairs_.ids[slot] == kNoExpert ? 0.0f : pairs_.weights[slot] / sum_; }
  const TokenPairs& pairs() const { return pairs_; }
  // False when a weight is NaN or infinite: then no rule touches the token.
  bool are_numbers() const;

 private:
  TokenPairs pairs_;
  float sum_ = 0.0f;
};

// Where the experts of one layer are, seen from the rank that holds the tokens.
struct Destinations {
  std::span<const ExpertHome> homes;  // by expert, then where there are shadows by num_experts + expert
  const ClusterTopology& topology;
  int own_rank = 0;
  std::span<const float> shadow_errors = {};  // of the own rank's shadows by expert, 1 where there is none; empty: no shadows

  int rank_of(int32_t expert) const;
  // The id of the own rank's shadow of an expert; kNoExpert where there is none.
  int32_t shadow_of(int32_t expert) const;
  // What the own rank loses of an expert's answer without a trip: all of it where it has no shadow.
  float error_of_shadow(int32_t expert) const {
    return shadow_errors.empty() ? 1.0f : shadow_errors[static_cast<size_t>(expert)];
  }
  Hop hop_to(int rank) const { return topology.hop(own_rank, rank); }
  bool is_own(int32_t expert) const { return rank_of(expert) == own_rank; }
};

// The thresholds of an operating point for one layer, class and phase. Fields mean what they mean there; a default one, which
// protected tokens have, skips nothing.
struct TokenRules {
  PairRule pair_rule = PairRule::kScore;
  float alpha = 0.0f;
  float tau = 0.0f;
  float kept_k = 0.0f;
  float beta = 0.0f;
  std::span<const float> expert_scale;  // of the layer, by expert; empty: 1
  std::span<const float> expert_similarity;  // of the layer, a square; empty unless kSimilar
  std::array<float, kNumHops> tau_dst{};
  std::array<float, kNumHops> tau_shadow{};
  DestinationScore destination_score = DestinationScore::kSumOfSquares;
  float rank_capacity = 0.0f;
  int32_t decode_base_k = 0;        // 0 for prompt tokens
  int32_t decode_rank_experts = 0;  // 0 for prompt tokens
  float protect_margin = 0.0f;
  bool exempt_local = false;
  bool protect_top1 = false;
  bool renormalize = false;
  bool is_bypassed = false;  // identity_bypass of this layer

  bool skip_nothing() const;
  bool may_use_shadows() const { return tau_shadow[1] > 0.0f || tau_shadow[2] > 0.0f; }
};

struct TokenKind {
  int moe_layer = 0;
  TokenClass token_class = TokenClass::kText;
  TokenPhase phase = TokenPhase::kPrompt;
};

// Views `point`, which must outlive the result.
TokenRules token_rules(const OperatingPoint& point, const TokenKind& kind);

// alpha · p · scale of a slot: what the pair rule compares with tau, and the order in which full ranks lose pairs.
float pair_score(const PairShares& shares, const TokenRules& rules, size_t slot);

// How alike the expert of a slot is to the token's first; 0 where there is none.
float similarity_to_first(const PairShares& shares, const TokenRules& rules, size_t slot);

// Whether the token is out of reach of every rule: nothing to skip, a rare case (protect_margin), or weights that are no numbers.
bool keeps_all_pairs(const PairShares& shares, const TokenRules& rules);

// Whether no rule may take this pair: the first expert of a token with protect_top1.
bool is_spared(const PairShares& shares, const TokenRules& rules, size_t slot);

// The rules of every token of a micro-batch. Neighbours are mostly alike, so each run of equal tokens is looked up once.
class BatchRules {
 public:
  // Both references outlive this object.
  BatchRules(const LevelTable& levels, int moe_layer, const TokenPolicies& policies);

  int64_t num_tokens() const { return policies_.num_tokens(); }
  // Valid until the next call.
  const TokenRules& of(int64_t token);

 private:
  const LevelTable& levels_;
  const int moe_layer_;
  const TokenPolicies& policies_;
  uint32_t last_key_;
  TokenRules last_;
};

// A micro-batch on its way through the rules.
struct SkipBatch {
  const Routing& routed;
  Tensor& kept_ids;  // [T, top_k] i32, what earlier rules left; the rules write kNoExpert
  BatchRules& rules;
  const Destinations& destinations;
};

}  // namespace skipper
