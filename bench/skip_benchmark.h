// One prompt of random tokens at thresholds that skip given shares of its pairs: total time and time in experts.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <vector>

#include "base/thread_pool.h"
#include "bench/token_streams.h"
#include "cluster/cluster_topology.h"
#include "cluster/operating_point.h"
#include "comm/communicator.h"
#include "model/kv_cache.h"
#include "model/multimodal_model.h"

namespace skipper {

struct SkipBenchmarkConfig {
  std::filesystem::path model;
  WeightConfig formats = {};
  int64_t prompt_tokens = 0;
  std::vector<double> shares;  // of the pairs to skip, each in [0, 1)
};

// A prefill of this rank.
struct PrefillTime {
  double seconds = 0.0;
  double expert_seconds = 0.0;
};

// Case 0 is level 0; case 1 decides over every pair and skips none; the others follow the shares of the config. The pair rule
// with equal alpha; thresholds are quantiles of the scores of this very prompt. Engine thread only; one rank.
class SkipBenchmark {
 public:
  SkipBenchmark(const SkipBenchmarkConfig& config, Communicator& data, const ClusterTopology& topology, ThreadPool& workers);

  size_t num_cases() const { return levels_.levels.size(); }
  // Share of the pairs that the case skips, measured; also warms up. Throws Error when cases 0 and 1 differ in a bit or a
  // logit is not finite.
  double verify(size_t case_index);
  PrefillTime measure(size_t case_index);

 private:
  // Ascending scores p / layers of every pair of the prompt at level 0.
  std::vector<float> scores();
  void add_levels(const std::vector<double>& shares);
  std::vector<float> prefill(size_t case_index);

  ModelConfig model_config_;
  Stream stream_;
  LevelTable levels_;
  std::unique_ptr<MultimodalModel> model_;
  std::unique_ptr<KvCache> cache_;
  std::unique_ptr<TokenStream> prompt_;
  std::unique_ptr<StreamBatch> batch_;
  std::vector<float> unskipped_;  // logits of case 0
};

}  // namespace skipper
