// Runs one MoE layer over thread ranks and collects what every token got and every rank counted.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "cluster/operating_point.h"
#include "cluster/token_class.h"
#include "expert_parallel/dispatch_config.h"
#include "expert_parallel/expert_placement.h"
#include "expert_parallel/traffic_counters.h"
#include "kernels/weight_format.h"
#include "tests/support/moe_reference.h"

namespace skipper {

// Tokens of all ranks. Token t is held by rank owners[t].
struct TokenBatch {
  int64_t hidden_size = 0;
  std::vector<float> hidden;  // [T · H]
  std::vector<TokenClass> classes;
  std::vector<uint8_t> levels;
  std::vector<int> owners;

  size_t size() const { return owners.size(); }
  std::span<const float> row(size_t token) const;
  // The tokens listed, in that order.
  TokenBatch subset(const std::vector<size_t>& tokens) const;
};

// Text tokens of level 0, spread over the ranks at random. Values are normal, rounded to bf16.
TokenBatch random_batch(size_t num_tokens, const MoeShape& shape, int world_size, uint32_t seed);

// Level 0 and one level for each pair of thresholds; alpha = 1 (one MoE layer).
LevelTable levels_with(const std::vector<std::array<float, 2>>& taus);

inline constexpr DispatchConfig kExactFormats{.payload_format = PayloadFormat::kF32, .combine_dtype = DType::kF32};

// Experts keep FP32 activations unless rows travel in BF16.
struct MoeSetup {
  const MoeWeights& weights;
  int world_size = 1;
  std::vector<int> node_of_rank{};  // empty = one node
  DispatchConfig formats{};
  LevelTable levels = levels_with({});
  int64_t max_rows_per_pass = 512;
  WeightFormat expert_format{};
  int num_threads = 1;  // of each rank
  std::vector<ShadowExpert> shadows{};
  WeightFormat shadow_format{};
};

struct TokenResult {
  std::vector<float> out;
  std::vector<int32_t> routed_ids;
  std::vector<int32_t> kept_ids;
  std::vector<float> routed_weights;
  std::vector<float> kept_weights;
};

struct MoeRun {
  std::vector<TokenResult> tokens;
  std::vector<TrafficCounters> counters;  // by rank

  TrafficCounters total() const;
  std::vector<std::vector<float>> outputs() const;
};
MoeRun run_moe(const MoeSetup& setup, const TokenBatch& batch);

// Sum over hops and classes, both directions.
int64_t payload_bytes(const TrafficCounters& counters);

}  // namespace skipper
