// What an audit file holds: who wrote it, the level tables that applied, and one decision per sampled token and MoE layer.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cluster/token_class.h"

namespace skipper {

inline constexpr int64_t kAuditVersion = 1;

// In shadow_errors, of an expert that the rank has no shadow of.
inline constexpr float kNoShadow = -1.0f;

// First line.
struct AuditHeader {
  std::string model_fingerprint;
  int num_moe_layers = 0;
  int num_experts = 0;
  int rank = 0;                   // whose tokens these are
  std::vector<int> node_of_rank;  // one per rank
  int64_t bytes_per_row = 0;      // payload of one hidden row to another rank and back
  // [MoE layer · num_experts + expert]
  std::vector<int32_t> owners = {};       // ranks; empty: equal blocks (ExpertPlacement::contiguous)
  std::vector<float> shadow_errors = {};  // of the rank's own shadows (ShadowExpert), or kNoShadow; empty: no rank has any

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
  uint32_t plan_version = 0;  // of the experts that it ran on; 0 where none are switched
  std::vector<int32_t> experts;
  std::vector<float> weights;
  std::vector<bool> kept;
  std::vector<bool> on_shadow = {};  // of the kept: run on the rank's shadow copy; empty where no rank has shadows
  std::vector<float> scores;    // what the pair rule compares with the threshold; empty when it compares nothing
  float threshold = 0.0f;
  std::vector<int32_t> destinations;  // ranks that get the token, ascending, its own among them

  bool operator==(const RoutingRecord&) const = default;
};

}  // namespace skipper
