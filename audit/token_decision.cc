#include "audit/token_decision.h"

#include "expert_parallel/expert_skipping.h"

namespace skipper {

std::vector<int32_t> decide_again(const RoutingRecord& record, const LevelTable& levels, const TokenPlace& place) {
  std::vector<int32_t> kept(record.experts.size());
  apply_token_rules({record.experts, record.weights}, token_rules(levels.levels[record.level], kind_of(record)),
                    {place.placement.homes(record.moe_layer), place.topology, place.rank}, kept);
  return kept;
}

}  // namespace skipper
