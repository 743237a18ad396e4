// Decode and prefill steps of a decoder with random weights on a GPU: verified first, then timed.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "bench/gpu_clock.h"
#include "bench/token_streams.h"
#include "bench/written_out_decoder.h"
#include "cluster/cluster_topology.h"
#include "cluster/operating_point.h"
#include "expert_parallel/expert_placement.h"
#include "expert_parallel/pair_counters.h"
#include "model/cuda/decoder.h"
#include "model/kv_cache.h"

namespace skipper::cuda {

// Prompts of equal length in one step.
struct PromptShape {
  int64_t num_prompts = 0;
  int64_t num_tokens = 0;  // of each
};

struct GpuDecoderConfig {
  ModelConfig model;
  RandomWeightFormats formats;
  std::vector<int64_t> streams;  // of the decode steps to be measured
  std::vector<PromptShape> prompts;
  int64_t context = 0;       // tokens of a stream before it decodes
  int64_t decode_steps = 0;  // that are timed
  GraphUse graphs = GraphUse::kDecodeSteps;
  // Of the experts of each layer; the others rest in host memory, and prompts stage them.
  double device_expert_share = 1.0;
};

// What a decode step reads: counted layer by layer on the experts that its tokens were routed to.
struct DecodeWork {
  double mean_experts = 0.0;  // different ones of a layer
  int64_t min_experts = 0;
  int64_t max_experts = 0;
  double num_bytes = 0.0;       // dense weights, head, and those experts, wherever they rest
  double num_host_bytes = 0.0;  // of them over the bus
};

// Levels of the thresholds: 0 skips nothing, 1 decides over every pair and skips none, 2 has the threshold chosen last.
inline constexpr uint8_t kUnskipped = 0;
inline constexpr uint8_t kDecidesOnly = 1;
inline constexpr uint8_t kChosen = 2;

using PartSeconds = std::array<double, kNumStepParts>;

// Engine thread only; one rank.
class GpuDecoderBenchmark {
 public:
  // Makes the weights and fills the contexts of all streams. Throws DeviceError when the GPU's memory does not do.
  GpuDecoderBenchmark(const GpuDecoderConfig& config, Stream& stream);

  const DecoderWeights& weights() const { return weights_; }
  const LevelTable& levels() const { return levels_; }

  // Some steps, by the decoder and written out. Throws Error when a logit is not finite, when the two differ in a bit, or when
  // all streams chose the same tokens.
  DecodeWork verify_decode(int64_t num_streams);
  // Median time of a step on the host's clock, from the batch to the chosen tokens.
  double decode_seconds(int64_t num_streams);

  // The same checks of a prefill, at a level; level kDecidesOnly must give the bits of kUnskipped.
  void verify_prefill(const PromptShape& prompts, uint8_t level);
  double prefill_seconds(const PromptShape& prompts, uint8_t level);
  // That a prefill stages: the last layer, which computes few rows, is read in place.
  double staged_bytes() const;
  // Median time of each part, on the GPU's clock, between kernels that wait for one another.
  PartSeconds prefill_part_seconds(const PromptShape& prompts, uint8_t level);

  // Sets the threshold of level kChosen so that about `share` of the pairs of these prompts are skipped. Returns the share that
  // the decoder counted.
  double choose_threshold(const PromptShape& prompts, double share);

 private:
  StepLimits limits() const;
  void make_streams();
  void fill_contexts(const StepLimits& limits);
  BatchInput decode_batch(int64_t num_streams, int64_t step);
  BatchInput prompt_batch(const PromptShape& prompts, uint8_t level);
  StepOutput forward(BatchInput batch);
  // Runs both decoders. Returns the logits of the decoder, on the host.
  Tensor verified_logits(const BatchInput& batch, const std::string& name, const StepObserver& observer = {});
  double skipped_share(const PromptShape& prompts, float tau);

  GpuDecoderConfig config_;
  Stream& stream_;
  DecoderWeights weights_;  // the decoder's, whose memory it shares
  ExpertPlacement placement_;
  ClusterTopology topology_;
  LevelTable levels_;
  PairCounters pairs_;
  TrafficCounters traffic_;
  std::unique_ptr<Decoder> decoder_;
  std::unique_ptr<WrittenOutDecoder> written_out_;
  std::unique_ptr<KvCache> cache_;
  std::vector<TokenStream> streams_;
  std::vector<TokenStream> prompts_;
  std::unique_ptr<StreamBatch> batch_;
};

}  // namespace skipper::cuda
