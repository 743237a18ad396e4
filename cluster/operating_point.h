// Skip thresholds: one operating point, and the versioned table of levels that is the same on every rank.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "cluster/cluster_topology.h"
#include "cluster/token_class.h"

namespace skipper {

class JsonFields;

// How an operating point chooses among a token's pairs. p_1 >= p_2 >= ... are its weights divided by their sum, before any
// routed_scaling_factor. All rules are strict: a threshold of 0 skips nothing.
enum class PairRule : uint8_t {
  kScore,     // skip iff alpha[class][layer] · scale[layer][expert] · p < tau (MoDES, eq. 3 and 5)
  kTopK,      // keep the first `kept_k`; a fraction keeps one more for that share of the tokens
  kTailMass,  // skip j, j + 1, ... of the smallest j with Σ_{u >= j} p_u < beta[class][layer] (NAEE for k > 2; adaptive k)
  kRelative,  // skip j iff p_j < beta[class][layer] · p_1 (NAEE for k = 2, AdapMoE)
  kSimilar,   // skip j > 1 iff p_j < beta[class][layer] · similarity[layer][expert of 1][expert of j] · p_1 (DiEP)
};

// What a token's pairs at one destination are worth together.
enum class DestinationScore : uint8_t {
  kSumOfSquares,  // alpha · Σ p²: the error's energy where experts' outputs are orthogonal
  kSum,           // alpha · Σ p
};

inline constexpr size_t kNumSkippableClasses = 2;  // text and vision; protected tokens have no thresholds

using ExemptLayers = std::array<std::vector<uint8_t>, kNumTokenPhases>;  // [phase][MoE layer], empty: none

// One set of thresholds; what they mean stands in expert_parallel/expert_skipping.h. Arrays over classes are text = 0,
// vision = 1, arrays over hops as in Hop.
// Goals: the file format of operating_point.json, validated. Non-goals: choosing the numbers (evaluation/ does).
struct OperatingPoint {
  PairRule pair_rule = PairRule::kScore;
  std::array<std::vector<float>, kNumSkippableClasses> alpha = {};  // [class][MoE layer]; each sums to 1 over the layers
  std::array<float, kNumSkippableClasses> tau = {0.0f, 0.0f};
  std::optional<float> tau_generated = {};                          // of text that was generated; absent: tau
  std::array<float, kNumSkippableClasses> kept_k = {0.0f, 0.0f};  // kTopK; 0: all
  std::array<std::vector<float>, kNumSkippableClasses> beta = {};   // [class][MoE layer]; empty: 0; not kScore, kTopK
  std::vector<float> expert_scale = {};                             // [MoE layer · num_experts], kScore; empty: 1
  std::vector<float> expert_similarity = {};  // [MoE layer · num_experts · num_experts], kSimilar; 1 is a layer's mean

  std::array<std::array<float, kNumHops>, kNumSkippableClasses> tau_dst{};  // destination rule; 0 for the local hop, always
  DestinationScore destination_score = DestinationScore::kSumOfSquares;
  // Of what the destination rule left, the pairs at a rank run on shadows here, or not at all, where the trip is worth less;
  // 0 for the local hop, always.
  std::array<std::array<float, kNumHops>, kNumSkippableClasses> tau_shadow{};
  bool exempt_local = false;  // the pair rule spares pairs of the token's own rank

  float rank_capacity = 0.0f;      // pairs a rank may run, in multiples of the mean over ranks, at least 1; 0: no limit
  int32_t decode_base_k = 0;       // batch-aware decode (OEA): experts that some token has among its first k; 0: off
  int32_t decode_rank_experts = 0;  // at most so many distinct experts on each rank, the largest sums of p first; 0: no limit

  bool protect_top1 = false;   // a token keeps its first expert
  float protect_margin = 0.0f;  // a token with p_1 − p_2 under it keeps all (rare cases)
  // Of a prompt's tokens in a step, this share keeps all: those with the largest |x|_1 · attention received (MC-MoE).
  float protect_attention = 0.0f;
  bool renormalize = false;    // survivors' weights sum to what they were before

  // Layers whose experts return their input instead, for calibration by the released MoDES code's convention; not in files.
  std::array<std::vector<uint8_t>, kNumSkippableClasses> identity_bypass = {};  // [class][MoE layer], empty: none

  // Layers in which tokens of a phase keep all pairs, because deciding there costs more than it saves; not in files.
  ExemptLayers exempt_layers = {};

  bool skips_nothing() const;
  bool uses_shadows() const;          // any tau_shadow
  bool depends_on_placement() const;  // destination rule, shadows, exempt_local, or a limit for each rank
  // A rule of capacities or of decode batches, or protect_attention, which sees a prompt as far as one step takes it.
  bool depends_on_batch() const;
  bool operator==(const OperatingPoint&) const = default;
};

// Level 0 always skips nothing; level n ≥ 1 is the n-th operating point. Immutable; shared by all ranks of a job.
struct LevelTable {
  uint32_t version = 1;
  std::vector<OperatingPoint> levels;  // levels[0] has tau = 0

  int num_levels() const { return static_cast<int>(levels.size()); }
};

struct ModelIdentity {
  std::string fingerprint;
  int num_moe_layers = 0;
  int num_experts = 0;  // of a layer; 0: expert_scale may have any whole number a layer
};

// Of a file that names the model it was made for. Throws InvalidFile naming both fingerprints; `advice` says what to do.
void require_fingerprint(const JsonFields& file, const ModelIdentity& model, const std::string& advice);

// Whether ranks hold shadow copies of others' experts.
enum class ShadowCopies : uint8_t { kUnknown, kNone, kSome };

// The ranks that thresholds of destinations were found for, or shall apply to.
struct PlacementWorld {
  int ranks = 0;  // 0: not known, goes with every other
  int ranks_per_node = 0;
  ShadowCopies shadows = ShadowCopies::kUnknown;  // where levels shall apply; not in files

  bool operator==(const PlacementWorld&) const = default;
};

// ranks_per_node is that of the fullest node.
PlacementWorld placement_world(const ClusterTopology& topology);

// Every number of the table as text, for comparing it between ranks.
std::string describe(const LevelTable& table);

// For messages between ranks. Decoding throws CommError when the bytes are not what encode() wrote.
void encode(const LevelTable& table, std::vector<std::byte>& out);
LevelTable decode_level_table(std::span<const std::byte> bytes);

// A table with level 0 alone.
LevelTable unskipped_levels(int num_moe_layers);

// Reads operating_point.json (becomes level 1) or frontier.json (its "levels" become 0..n; its level 0 must skip nothing).
// Keys have the names of the fields above; only alpha and, for the rule "score", tau are required:
//   "pair_rule": "score" | "top_k" | "tail_mass" | "relative" | "similar"
//   "alpha", "beta": {"text": [MoE layers], "vision": [..]}      "tau", "kept_k": {"text": x, "vision": y}
//   "expert_scale": [MoE layers · experts]                       "expert_similarity": [MoE layers · experts · experts]
//   "tau_dst": {"text": {"node": a, "network": b}, "vision": ..}
//   "tau_shadow": as tau_dst
//   "destination_score": "sum_of_squares" | "sum"                the rest: one number or true / false
// and in the file beside "version": "model_fingerprint", "placement": {"ranks": R, "ranks_per_node": N}; a level of a frontier
// may hold "measured", which is for people and for the search.
// Throws InvalidFile naming file and key: unknown keys, NaN or negative thresholds, alpha that does not sum to 1 or has
// another number of layers than the model, keys of another pair rule than the point's, a fingerprint of another model or, for
// levels that depend on it, another placement (both named); tau_shadow where no rank has shadows.
LevelTable load_levels(const std::filesystem::path& path, const ModelIdentity& model, const PlacementWorld& world = {});
// The same from the document of such a file, called `name` in messages.
LevelTable read_levels(const nlohmann::json& document, const std::string& name, const ModelIdentity& model,
                       const PlacementWorld& world = {});

// The point as in such a file, without the keys that have their defaults; reads back to the same bits.
nlohmann::json to_json(const OperatingPoint& point);

}  // namespace skipper
