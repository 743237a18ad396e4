// The skip decision of one logged token, made again without a model.
#pragma once

#include <cstdint>
#include <vector>

#include "audit/routing_record.h"
#include "cluster/cluster_topology.h"
#include "cluster/operating_point.h"
#include "expert_parallel/expert_placement.h"
#include "expert_parallel/token_rules.h"

namespace skipper {

// Where a token's experts are, seen from the rank that owns the token.
struct TokenPlace {
  const ExpertPlacement& placement;
  const ClusterTopology& topology;
  int rank = 0;
};

inline TokenKind kind_of(const RoutingRecord& record) {
  return {.moe_layer = record.moe_layer, .token_class = record.token_class, .phase = record.phase};
}

// The record's experts, kNoExpert where `levels` skips them under the record's class, phase and level, ids of shadows where they
// run on those, whatever was logged. Only for points of which !depends_on_batch().
// level < levels.num_levels().
std::vector<int32_t> decide_again(const RoutingRecord& record, const LevelTable& levels, const TokenPlace& place);

}  // namespace skipper
