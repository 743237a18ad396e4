// Runs whole sequences through a model in chunks, all of them together in each step.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "cluster/token_class.h"
#include "model/kv_cache.h"
#include "model/multimodal_model.h"
#include "model/rotary_positions.h"
#include "tests/model/prompt_fixture.h"

namespace skipper {

struct TestSequence {
  std::vector<int32_t> token_ids;
  std::vector<ImagePatches> images;
  std::vector<int32_t> rows;  // positions whose logits are read, ascending
  uint8_t level = 0;
  TokenClass text_class = TokenClass::kText;  // of all but image tokens
};

TestSequence sequence_of(const PromptFixture& prompt);

struct RunPlan {
  int64_t chunk_size = 0;  // tokens of each sequence in a step
  int64_t num_steps = 0;   // the same on every rank
  // Above 0: ForwardShape::slot_rows of each step, which every rank takes with the same number of rows, all of them read.
  int32_t slot_rows = 0;
};

// Steps that sequences of at most `longest` tokens take.
RunPlan plan_for(int64_t longest, int64_t chunk_size);

// Of the KV cache, of hidden rows between ranks, and of weights; the threads of each rank; and where it computes.
struct RunFormats {
  DType kv = DType::kBF16;
  DispatchConfig rows = {};
  WeightConfig weights = {};
  int num_threads = 1;
  Device device = Device::host();
  GraphUse graphs = GraphUse::kDecodeSteps;
  std::optional<ExpertTiers> expert_tiers = std::nullopt;
  std::optional<ExpertAssignment> assignment = std::nullopt;  // of this rank
  std::optional<DiskConfig> disk = std::nullopt;
  NcclCommunicator* gpu_data = nullptr;
};

// A model with a KV cache, alone or as one of several ranks.
class SequenceRunner {
 public:
  static constexpr int64_t kMaxTokens = 2048;
  static constexpr int64_t kNumBlocks = 256;

  SequenceRunner(const std::filesystem::path& model, Communicator& data, const LevelTable& levels,
                 const RunFormats& formats = {});

  // logits[i] = [rows of sequence i, V], row by row.
  std::vector<std::vector<float>> run(const std::vector<TestSequence>& sequences, const RunPlan& plan);

  MultimodalModel& model() { return *model_; }
  KvCache& cache() { return *cache_; }
  Stream& stream() { return *stream_; }
  const ModelConfig& config() const { return config_; }

 private:
  struct Placed;
  struct Batch;

  void append_chunk(Placed& placed, size_t index, const RunPlan& plan, int64_t step, Batch& batch) const;

  ModelConfig config_;
  ClusterTopology topology_;
  std::unique_ptr<MultimodalModel> model_;
  std::unique_ptr<KvCache> cache_;
  ThreadPool workers_;
  std::unique_ptr<Stream> stream_;
};

// The logits of one sequence on a single rank, in one chunk.
std::vector<float> logits_alone(const std::filesystem::path& model, const TestSequence& sequence,
                                const RunFormats& formats = {});

}  // namespace skipper
