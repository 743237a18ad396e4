// Prefill and decode steps of one model on random tokens: verified first, then timed.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "bench/routing_census.h"
#include "bench/step_bytes.h"
#include "bench/token_streams.h"
#include "cluster/cluster_topology.h"
#include "cluster/operating_point.h"
#include "comm/communicator.h"
#include "model/kv_cache.h"
#include "model/multimodal_model.h"
#include "model/weight_config.h"

namespace skipper {

enum class Phase : uint8_t { kPrefill, kDecode };

// A prefill of `size` tokens is one sequence of that length on every rank, in one step. A decode of `size` streams shares them
// out over the ranks, each stream with tokens of its own.
struct BenchmarkCase {
  Phase phase = Phase::kPrefill;
  int64_t size = 0;

  std::string name() const;  // "prefill 512", "decode 16"
};

struct ModelBenchmarkConfig {
  std::filesystem::path model;
  WeightConfig formats = {};  // made at load; the same for step_bytes.h
  std::vector<BenchmarkCase> cases;
  int64_t context = 0;       // tokens of a stream before it decodes
  int64_t decode_steps = 0;  // of one run
};

// What one step reads, on all ranks together.
struct StepWork {
  DistinctExperts experts;
  double num_bytes = 0.0;  // weights and KV cache, each once; embedding rows included
};

// Engine thread only. All ranks call the same methods in the same order; references outlive it.
class ModelBenchmark {
 public:
  // Loads the model and fills the contexts of all streams. Throws Error when a sequence is too long for it.
  ModelBenchmark(const ModelBenchmarkConfig& config, Communicator& data, const ClusterTopology& topology, ThreadPool& workers);

  // Runs the case twice. Throws Error when a logit is not finite or the runs differ in a bit. Also warms up.
  StepWork verify(size_t case_index);
  // One timed run, tokens/s of all ranks; after verify(). Throws Error when the logits are not those of verify().
  double measure(size_t case_index);

  const ModelConfig& model_config() const { return model_config_; }

 private:
  void make_streams();
  void fill_contexts();
  // Logits of this rank's rows in the last step of the case.
  std::vector<float> run(const BenchmarkCase& benchmark);
  std::vector<float> forward();
  void check_logits(const BenchmarkCase& benchmark, const std::vector<float>& logits, const std::vector<float>& expected) const;
  // Streams of a decode that this rank owns: the first of streams_.
  size_t num_local_streams(int64_t num_streams) const;
  double bytes_of_step(const BenchmarkCase& benchmark, const DistinctExperts& experts) const;

  ModelBenchmarkConfig config_;
  Communicator& data_;
  Stream stream_;
  ModelConfig model_config_;
  LevelTable levels_;
  std::unique_ptr<MultimodalModel> model_;
  std::unique_ptr<KvCache> cache_;
  std::unique_ptr<TokenStream> prompt_;  // of the prefills: each takes its beginning
  std::vector<TokenStream> streams_;
  std::unique_ptr<StreamBatch> batch_;
  StepBytes bytes_;
  RoutingCensus census_;
  bool census_is_open_ = false;
  std::vector<std::vector<float>> expected_;  // logits by case, from verify()
};

}  // namespace skipper
