#include "audit/token_decision.h"

#include "expert_parallel/expert_skipping.h"

namespace skipper {

std::vector<int32_t> decide_again(const RoutingRecord& record, const LevelTable& levels, const TokenPlace& place) {
  std::vector<int32_t> kept(record.experts.size());
  apply_token_rules({record.experts, record.weights}, token_rules(levels.levels[record.level], kind_of(record)),
                    {.homes = place.placement.homes_seen_from(place.rank, record.moe_layer),
                     .topology = place.topology,
                     .own_rank = place.rank,
                     .shadow_errors = place.placement.shadow_errors(place.rank, record.moe_layer)},
                    kept);
  return kept;
}

}  // namespace skipper
