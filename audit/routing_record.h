// What an audit file holds: who wrote it, the level tables that applied, and one decision per sampled token and MoE layer.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cluster/token_class.h"

namespace skipper {

inline constexpr int64_t kAuditVersion = 1;

// First line. Experts are placed contiguously (ExpertPlacement::contiguous), the one rule there is.
struct AuditHeader {
  std::string model_fingerprint;
  int num_moe_layers = 0;
  int num_experts = 0;
  int rank = 0;                   // whose tokens these are
  std::vector<int> node_of_rank;  // one per rank
  int64_t bytes_per_row = 0;      // payload of one hidden row to another rank and back

  int world_size() const { return static_cast<int>(node_of_rank.size()); }
  bool operator==(const AuditHeader&) const = default;
};

// One token at one MoE layer. Lists run over the router's slots, largest weight first.
struct RoutingRecord {
  uint64_t request = 0;
  int32_t position = 0;  // in the request's prompt and answer
  int layer = 0;         // among all decoder layers
  int moe_layer = 0;
  TokenClass token_class = TokenClass::kText;
  TokenPhase phase = TokenPhase::kPrompt;
  uint8_t level = 0;
  std::vector<int32_t> experts;
  std::vector<float> weights;
  std::vector<bool> kept;
  std::vector<float> scores;    // what the pair rule compares with the threshold; empty when it compares nothing
  float threshold = 0.0f;
  std::vector<int32_t> destinations;  // ranks that get the token, ascending, its own among them

  bool operator==(const RoutingRecord&) const = default;
};

}  // namespace skipper
