#include "expert_parallel/decode_experts.h"

#include <algorithm>

namespace skipper {

namespace {

using DecodeLimit = int32_t TokenRules::*;

// Calls visit(rules, shares, slot, id, is_inside) for every pair still there; `is_inside` if `limit` may take it.
template <typename Visit>
void for_each_kept_pair(const SkipBatch& batch, DecodeLimit limit, const Visit& visit) {
  for (int64_t token = 0; token < batch.rules.num_tokens(); ++token) {
    const TokenRules& rules = batch.rules.of(token);
    const PairShares shares(pairs_of(batch.routed, token));
    const bool token_is_inside = rules.*limit > 0 && !keeps_all_pairs(shares, rules);
    int32_t* ids = batch.kept_ids.row<int32_t>(token);
    for (size_t slot = 0; slot < shares.pairs().num_slots(); ++slot) {
      if (ids[slot] == kNoExpert) continue;
      visit(rules, shares, slot, ids[slot], token_is_inside && !is_spared(shares, rules, slot));
    }
  }
}

bool any_token_has(const SkipBatch& batch, DecodeLimit limit) {
  for (int64_t token = 0; token < batch.rules.num_tokens(); ++token) {
    if (batch.rules.of(token).*limit > 0) return true;
  }
  return false;
}

void share_base_experts(const SkipBatch& batch, std::vector<uint8_t>& is_needed) {
  constexpr DecodeLimit kLimit = &TokenRules::decode_base_k;
  if (!any_token_has(batch, kLimit)) return;
  is_needed.assign(batch.destinations.homes.size(), 0);
  for_each_kept_pair(batch, kLimit, [&](const TokenRules& rules, const PairShares&, size_t slot, int32_t id, bool is_inside) {
    if (!is_inside || slot < static_cast<size_t>(rules.decode_base_k)) is_needed[static_cast<size_t>(id)] = 1;
  });
  for_each_kept_pair(batch, kLimit, [&](const TokenRules&, const PairShares&, size_t, int32_t& id, bool is_inside) {
    if (is_inside && is_needed[static_cast<size_t>(id)] == 0) id = kNoExpert;
  });
}

void weigh_experts(const SkipBatch& batch, DecodeExperts& experts) {
  experts.is_needed.assign(batch.destinations.homes.size(), 0);
  experts.importance.assign(batch.destinations.homes.size(), 0.0f);
  for_each_kept_pair(batch, &TokenRules::decode_rank_experts,
                     [&](const TokenRules&, const PairShares& shares, size_t slot, int32_t id, bool is_inside) {
                       const auto expert = static_cast<size_t>(id);
                       if (!is_inside) experts.is_needed[expert] = 1;
                       if (is_inside) experts.importance[expert] += shares[slot];
                     });
}

// Numbers the experts of each rank: needed ones first, then by falling importance, ties by id.
void place_experts(const Destinations& destinations, DecodeExperts& experts) {
  const size_t num_experts = destinations.homes.size();
  experts.order.resize(num_experts);
  for (size_t expert = 0; expert < num_experts; ++expert) experts.order[expert] = static_cast<int32_t>(expert);
  const auto comes_first = [&](int32_t left, int32_t right) {
    const auto l = static_cast<size_t>(left), r = static_cast<size_t>(right);
    if (experts.is_needed[l] != experts.is_needed[r]) return experts.is_needed[l] > experts.is_needed[r];
    if (experts.importance[l] != experts.importance[r]) return experts.importance[l] > experts.importance[r];
    return left < right;
  };
  std::ranges::sort(experts.order, comes_first);
  experts.place.resize(num_experts);
  experts.num_at_rank.assign(static_cast<size_t>(destinations.topology.num_ranks()), 0);
  for (const int32_t expert : experts.order) {
    experts.place[static_cast<size_t>(expert)] = experts.num_at_rank[static_cast<size_t>(destinations.rank_of(expert))]++;
  }
}

void limit_experts_of_ranks(const SkipBatch& batch, DecodeExperts& experts) {
  constexpr DecodeLimit kLimit = &TokenRules::decode_rank_experts;
  if (!any_token_has(batch, kLimit)) return;
  weigh_experts(batch, experts);
  place_experts(batch.destinations, experts);
  for_each_kept_pair(batch, kLimit, [&](const TokenRules& rules, const PairShares&, size_t, int32_t& id, bool is_inside) {
    const auto expert = static_cast<size_t>(id);
    if (!is_inside || experts.is_needed[expert] != 0) return;
    if (experts.place[expert] >= rules.decode_rank_experts) id = kNoExpert;
  });
}

}  // namespace

void apply_decode_rules(const SkipBatch& batch, DecodeExperts& scratch) {
  share_base_experts(batch, scratch.is_needed);
  limit_experts_of_ranks(batch, scratch);
}

}  // namespace skipper
