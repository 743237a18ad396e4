#include "expert_parallel/token_rules.h"

#include <glog/logging.h>

#include <cmath>

namespace skipper {

namespace {

constexpr uint32_t kNoKey = ~uint32_t{0};

float value_of_layer(const std::vector<float>& values, size_t layer) {
  if (values.empty()) return 0.0f;
  CHECK_LT(layer, values.size());
  return values[layer];
}

// Of a table with equally many numbers for each layer; empty of an empty one.
std::span<const float> part_of_layer(const OperatingPoint& point, const std::vector<float>& table, size_t layer) {
  const size_t per_layer = table.size() / point.alpha[0].size();
  return std::span(table).subspan(layer * per_layer, per_layer);
}

float tau_of(const OperatingPoint& point, const TokenKind& kind) {
  const bool is_generated_text = kind.token_class == TokenClass::kText && kind.phase == TokenPhase::kGenerated;
  if (is_generated_text && point.tau_generated) return *point.tau_generated;
  return point.tau[static_cast<size_t>(kind.token_class)];
}

bool is_listed(const std::vector<uint8_t>& layers, size_t layer) { return layer < layers.size() && layers[layer] != 0; }

size_t first_slot(const TokenPairs& pairs) {
  size_t slot = 0;
  while (slot < pairs.num_slots() && pairs.ids[slot] == kNoExpert) ++slot;
  return slot;
}

}  // namespace

TokenPairs pairs_of(const Routing& routing, int64_t token) {
  const auto top_k = static_cast<size_t>(routing.expert_ids.dim(1));
  return {.ids = {routing.expert_ids.row<int32_t>(token), top_k},
          .weights = {routing.expert_weights.row<float>(token), top_k}};
}

PairShares::PairShares(const TokenPairs& pairs) : pairs_(pairs) {
  for (size_t slot = 0; slot < pairs.num_slots(); ++slot) {
    if (pairs.ids[slot] != kNoExpert) sum_ += pairs.weights[slot];
  }
  sum_ += 1e-20f;  // MoDES; keeps all-zero weights from dividing by zero
}

bool PairShares::are_numbers() const { return std::isfinite(sum_); }

int Destinations::rank_of(int32_t expert) const {
  CHECK(expert >= 0 && static_cast<size_t>(expert) < homes.size()) << "expert " << expert << " of " << homes.size();
  return homes[static_cast<size_t>(expert)].rank;
}

int32_t Destinations::shadow_of(int32_t expert) const {
  if (shadow_errors.empty()) return kNoExpert;
  const auto shadow = expert + static_cast<int32_t>(shadow_errors.size());
  CHECK_LT(static_cast<size_t>(shadow), homes.size());
  return homes[static_cast<size_t>(shadow)].slot < 0 ? kNoExpert : shadow;
}

bool TokenRules::skip_nothing() const {
  const bool has_pair_threshold = pair_rule == PairRule::kScore   ? tau > 0.0f
                                  : pair_rule == PairRule::kTopK ? kept_k > 0.0f
                                                                  : beta > 0.0f;
  const bool has_destination_threshold = tau_dst[1] > 0.0f || tau_dst[2] > 0.0f || may_use_shadows();
  const bool has_batch_rule = rank_capacity > 0.0f || decode_base_k > 0 || decode_rank_experts > 0;
  return !has_pair_threshold && !has_destination_threshold && !has_batch_rule && !is_bypassed;
}

TokenRules token_rules(const OperatingPoint& point, const TokenKind& kind) {
  if (kind.token_class == TokenClass::kProtected) return {};
  const auto c = static_cast<size_t>(kind.token_class);
  const auto layer = static_cast<size_t>(kind.moe_layer);
  if (is_listed(point.exempt_layers[static_cast<size_t>(kind.phase)], layer)) return {};
  const bool is_generated = kind.phase == TokenPhase::kGenerated;
  CHECK_LT(layer, point.alpha[c].size());
  return {.pair_rule = point.pair_rule,
          .alpha = point.alpha[c][layer],
          .tau = tau_of(point, kind),
          .kept_k = point.kept_k[c],
          .beta = value_of_layer(point.beta[c], layer),
          .expert_scale = part_of_layer(point, point.expert_scale, layer),
          .expert_similarity = part_of_layer(point, point.expert_similarity, layer),
          .tau_dst = point.tau_dst[c],
          .tau_shadow = point.tau_shadow[c],
          .destination_score = point.destination_score,
          .rank_capacity = point.rank_capacity,
          .decode_base_k = is_generated ? point.decode_base_k : 0,
          .decode_rank_experts = is_generated ? point.decode_rank_experts : 0,
          .protect_margin = point.protect_margin,
          .exempt_local = point.exempt_local,
          .protect_top1 = point.protect_top1,
          .renormalize = point.renormalize,
          .is_bypassed = is_listed(point.identity_bypass[c], layer)};
}

float pair_score(const PairShares& shares, const TokenRules& rules, size_t slot) {
  const float score = rules.alpha * shares[slot];
  if (rules.expert_scale.empty()) return score;
  const auto expert = static_cast<size_t>(shares.pairs().ids[slot]);
  CHECK_LT(expert, rules.expert_scale.size());
  return score * rules.expert_scale[expert];
}

float similarity_to_first(const PairShares& shares, const TokenRules& rules, size_t slot) {
  const std::span<const int32_t> ids = shares.pairs().ids;
  const auto num_experts = static_cast<size_t>(std::lround(std::sqrt(static_cast<double>(rules.expert_similarity.size()))));
  if (ids[0] == kNoExpert || ids[slot] == kNoExpert) return 0.0f;
  const size_t index = static_cast<size_t>(ids[0]) * num_experts + static_cast<size_t>(ids[slot]);
  CHECK_LT(index, rules.expert_similarity.size());
  return rules.expert_similarity[index];
}

bool keeps_all_pairs(const PairShares& shares, const TokenRules& rules) {
  if (rules.skip_nothing() || !shares.are_numbers()) return true;
  if (rules.protect_margin == 0.0f || shares.pairs().num_slots() == 0) return false;
  const float second = shares.pairs().num_slots() > 1 ? shares[1] : 0.0f;
  return shares[0] - second < rules.protect_margin;
}

bool is_spared(const PairShares& shares, const TokenRules& rules, size_t slot) {
  return rules.protect_top1 && slot == first_slot(shares.pairs());
}

BatchRules::BatchRules(const LevelTable& levels, int moe_layer, const TokenPolicies& policies)
    : levels_(levels), moe_layer_(moe_layer), policies_(policies), last_key_(kNoKey) {
  CHECK_EQ(policies.level.num_elements(), policies.num_tokens());
  CHECK_EQ(policies.phase.num_elements(), policies.num_tokens());
}

const TokenRules& BatchRules::of(int64_t token) {
  static const TokenRules kNone;
  if (policies_.keeps_all_pairs(token)) return kNone;
  const uint32_t level = policies_.level.data<uint8_t>()[token];
  const uint32_t token_class = policies_.token_class.data<uint8_t>()[token];
  const uint32_t phase = policies_.phase.data<uint8_t>()[token];
  const uint32_t key = level | token_class << 8 | phase << 16;
  if (key == last_key_) return last_;
  CHECK_LT(level, levels_.levels.size());
  CHECK_LT(token_class, static_cast<uint32_t>(kNumTokenClasses));
  CHECK_LT(phase, static_cast<uint32_t>(kNumTokenPhases));
  last_key_ = key;
  last_ = token_rules(levels_.levels[level],
                      {.moe_layer = moe_layer_, .token_class = TokenClass{static_cast<uint8_t>(token_class)},
                       .phase = TokenPhase{static_cast<uint8_t>(phase)}});
  return last_;
}

}  // namespace skipper
