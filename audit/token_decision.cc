#include "audit/token_decision.h"

#include "expert_parallel/expert_skipping.h"

namespace skipper {

std::vector<int32_t> decide_again(const RoutingRecord& record, const LevelTable& levels, const TokenPlace& place) {
  const TokenRules rules = token_rules(levels.levels[record.level], {.moe_layer = record.moe_layer,
                                                                     .token_class = record.token_class,
                                                                     .phase = record.phase});
  const Destinations destinations{
      .homes = place.placement.homes(record.moe_layer), .topology = place.topology, .own_rank = place.rank};
  std::vector<int32_t> kept_ids(record.experts.size());
  apply_token_rules({.ids = record.experts, .weights = record.weights}, rules, destinations, kept_ids);
  return kept_ids;
}

}  // namespace skipper
