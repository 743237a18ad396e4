// Prefills of several ranks at levels that skip pairs or destinations: time, bytes between hosts, and what was computed.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "bench/token_streams.h"
#include "cluster/cluster_topology.h"
#include "cluster/operating_point.h"
#include "comm/communicator.h"
#include "model/kv_cache.h"
#include "model/multimodal_model.h"

namespace skipper {

enum class SkippedUnit : uint8_t {
  kPair,         // the pair rule
  kDestination,  // the destination rule over Σ p², on the node and over the network alike
};

// `share` of the units without skipping, those with the lowest scores: pairs, or rows to other ranks. In [0, 1).
struct TrafficCase {
  SkippedUnit unit = SkippedUnit::kPair;
  double share = 0.0;

  std::string name() const;  // "none", "pairs 75 %", "destinations 50 %"
};

struct TrafficBenchmarkConfig {
  std::filesystem::path model;
  DispatchConfig formats = {};
  int64_t prompt_tokens = 0;       // of every rank
  std::vector<TrafficCase> cases;  // the case "none" is put before them
};

// One prefill of all ranks, in one step; the same on every rank.
struct TrafficRun {
  double seconds = 0.0;
  double skipped = 0.0;             // share of the pairs
  double network_bytes = 0.0;       // sent from host to host: rows, sums, pair lists and counts
  double busiest_host_bytes = 0.0;  // of them, by the host that sends most
  uint64_t logits_hash = 0;         // of the bits of all ranks' logits
};

// Thresholds are quantiles of the scores of these very prompts at level 0, with equal alpha. Engine thread only. All ranks call
// the same methods in the same order; references outlive it.
class TrafficBenchmark {
 public:
  // Loads the model; no collective inside. Throws Error when it has no experts or too short a context.
  TrafficBenchmark(const TrafficBenchmarkConfig& config, Communicator& data, const ClusterTopology& topology,
                   ThreadPool& workers);

  // Before the first run(); also warms up.
  void find_thresholds();
  const std::vector<TrafficCase>& cases() const { return config_.cases; }
  // Throws Error when a logit is not finite.
  TrafficRun run(size_t case_index);

 private:
  // Scores of all ranks at level 0, ascending.
  std::vector<float> scores(SkippedUnit unit);
  std::vector<float> prefill(size_t case_index);
  // Over all ranks.
  TrafficRun summarize(const TrafficCounters& traffic, const std::vector<float>& logits, double seconds);

  TrafficBenchmarkConfig config_;
  Communicator& data_;
  const ClusterTopology& topology_;
  Stream stream_;
  ModelConfig model_config_;
  LevelTable levels_;
  std::unique_ptr<MultimodalModel> model_;
  std::unique_ptr<KvCache> cache_;
  std::unique_ptr<TokenStream> prompt_;
  std::unique_ptr<StreamBatch> batch_;
};

}  // namespace skipper
