// The decoder of one rank on its GPU: embed, splice image features, layers, norm, logits, as model/multimodal_model.h says.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <tuple>
#include <vector>

#include "cluster/cluster_topology.h"
#include "cluster/operating_point.h"
#include "comm/communicator.h"
#include "comm/nccl_communicator.h"
#include "expert_parallel/cuda/device_moe_layer.h"
#include "expert_parallel/dispatch_config.h"
#include "expert_parallel/dispatch_demand.h"
#include "expert_parallel/expert_placement.h"
#include "expert_parallel/moe_layer.h"
#include "expert_parallel/pair_counters.h"
#include "expert_parallel/traffic_counters.h"
#include "kernels/cuda/decoder_rows.h"
#include "kernels/cuda/paged_attention.h"
#include "model/batch_input.h"
#include "model/cuda/decoder_weights.h"
#include "model/cuda/routing_recorder.h"
#include "model/cuda/step_inputs.h"
#include "model/kv_cache.h"
#include "model/model_config.h"
#include "model/multimodal_model.h"
#include "model/step_limits.h"
#include "model/step_output.h"
#include "tensor/cuda/captured_graph.h"
#include "tensor/cuda/pinned_tensor.h"

namespace skipper::cuda {

enum class StagingUse : uint8_t { kPrompts, kNone };

struct DecoderConfig {
  StepLimits limits;  // with max_sequences and max_positions
  DispatchConfig formats = {};
  GraphUse graphs = GraphUse::kDecodeSteps;
  // Experts on the host are copied to slots on the GPU for steps of many rows; otherwise kernels always read them in place.
  StagingUse staging = StagingUse::kNone;
  NodeRelayUse node_relay = NodeRelayUse::kPrompts;
};

// What the decoder shares with the rest of its rank. All references outlive it.
struct DecoderContext {
  const ExpertPlacement& placement;
  const ClusterTopology& topology;
  const LevelTable& levels;
  PairCounters& pairs;
  TrafficCounters& traffic;
  // How ranks agree on the shape of a step that nobody told them, and how their GPUs exchange rows. Null in a world of one.
  Communicator* agreement = nullptr;
  NcclCommunicator* data = nullptr;
  // Of the host, for experts that it computes.
  ThreadPool& workers = ThreadPool::caller_only();
};

// Rows of a decode step are padded up to the next of these, so that a few graphs serve all: 1, 2, 4, 8, 16, 24, 32, 48, 64, 96,
// 128, 192, 256, and multiples of 128 from there.
int64_t padded_rows(int64_t num_rows);

// Engine thread only. All ranks call forward() together, also with no tokens.
class Decoder {
 public:
  // Throws InvalidRequest for a shape that the kernels do not take, DeviceError without memory.
  Decoder(const ModelConfig& model, DecoderWeights weights, const DecoderConfig& config, const DecoderContext& context,
          Stream& stream);
  ~Decoder();
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;

  // One step; image features of the batch may lie on the host or on the GPU. Returns when the result is on the host. A row's
  // bits depend neither on the other rows, nor on how its sequence was cut into steps, nor on graphs, nor on the room that rows
  // had between ranks: where it was too little, the step is run once more, and counted once.
  StepOutput forward(const BatchInput& batch, KvCache& cache, Stream& stream);

  // Of the last step's rows: logits [L, V] f32 on the GPU.
  Tensor device_logits() const;
  // [>= T, kNumGpuUsageColumns] i32, host: see MultimodalModel.
  Tensor token_usage() const { return host_usage_.tensor(); }
  DispatchDemand dispatch_demand() const { return demand_; }
  int64_t bytes_per_sent_row() const { return row_bytes_.dispatch + row_bytes_.combine; }
  // The step that the next forward belongs to, for messages.
  void set_step(int64_t step);
  int num_graphs() const { return static_cast<int>(graphs_.size()); }
  // Steps that are observed run without graphs, with the same bits. Between steps.
  void set_routing_observer(const RoutingObserver& observer);
  // DeviceTallies::fetch_expert_loads().
  std::vector<int64_t> expert_loads(Stream& stream) const { return tallies_.fetch_expert_loads(stream); }
  // Of the products of experts since start, from timed steps that stand for the others.
  std::chrono::nanoseconds expert_time() const { return expert_time_; }

 private:
  struct Buffers;
  // The shape of a step on this rank, and what all ranks do the same.
  struct Agreement {
    bool is_decode = false;       // one token of each sequence, on every rank
    bool is_idle = false;         // no token on any rank
    StepShape shape;              // padded where a graph runs
    DispatchPlan tokens{};        // of all rows
    DispatchPlan logit_rows{};    // of those whose logits are read
    int64_t full_capacity = 0;    // at which no row can be lost

    bool may_lose_rows() const { return tokens.capacity < full_capacity; }
    void set_capacity(int64_t rows) { tokens.capacity = logit_rows.capacity = rows; }
  };
  struct Step {
    const Agreement& agreement;
    const StepTensors& inputs;
    std::span<const VisionSpan> images;
    KvCache& cache;
    Stream& stream;
  };
  // Rows on their way through a layer: all tokens of the step, or in the last layer those whose logits are read. Views.
  struct LayerRows {
    Tensor hidden;    // [n, H] f32, residual stream
    Tensor attended;  // [n, heads · D] bf16
    NormedRows normed;
    Tensor delta;     // [n, H] f32, what a sublayer adds to the residual stream
    const RowTensors& policies;
    DispatchPlan dispatch;
  };

  Agreement agree(const BatchInput& batch, int64_t block_size, Stream& stream);
  ForwardShape ask_others(const ForwardShape& own, Stream& stream) const;
  void run(const Agreement& agreement, const BatchInput& batch, KvCache& cache, Stream& stream);
  bool has_lost_rows(const Agreement& agreement);
  void discard_run(Stream& stream);
  void check_batch(const BatchInput& batch, const StepShape& shape) const;
  // How many steps like it the timing of a step stands for; 0: it is not timed.
  int choose_timing(const Agreement& agreement);
  void run_graph(const Step& step);
  void forget_graphs_of_other_caches(KvCache& cache);
  StepOutput fetch(LogitUse use, Stream& stream);
  Tensor logits_on_host(int64_t num_rows);

  bool meets_all_experts(int64_t num_rows) const;
  void begin_staging(const Agreement& agreement);
  // Everything that a graph records.
  void queue_step(const Step& step);
  void embed(const Step& step);
  LayerRows token_rows(const Step& step);
  LayerRows wanted_rows(const Step& step, const LayerRows& tokens);
  void attend(const Step& step, int64_t layer, const LayerRows& rows);
  void feed_forward(const Step& step, int64_t layer, LayerRows& rows);
  DispatchPlan dispatch_of(int64_t layer, const LayerRows& rows) const;
  void feed_forward_dense(const Step& step, int64_t layer, LayerRows& rows);
  NormWeights norm_after(int64_t layer) const;
  void splice_deepstack(const Step& step, int64_t layer, LayerRows& rows);
  void splice(const Step& step, const Tensor& features, const VisionSpan& span, SpliceKind kind);
  void queue_logits(const Step& step, const LayerRows& rows);
  void queue_copies(const Step& step);
  NormWeights norm(const Tensor& weight) const { return {weight, model_.rms_norm_epsilon}; }

  ModelConfig model_;
  DecoderWeights weights_;
  DecoderConfig config_;
  DecoderContext context_;
  DeviceSkipTable skip_table_;
  DeviceTallies tallies_;
  std::optional<DeviceDispatcher> dispatcher_;
  DispatchMode prompt_mode_ = DispatchMode::kExactCounts;
  std::optional<ExpertStaging> staging_;
  std::optional<HostExperts> host_experts_;
  DeviceMoeBuffers moe_buffers_;
  ExpertTimer expert_timer_;
  std::chrono::nanoseconds expert_time_{0};
  int64_t num_decode_steps_ = 0, num_other_steps_ = 0;
  std::vector<std::optional<DeviceMoeLayer>> moe_layers_;  // by decoder layer
  RoutingObserver routing_observer_;
  std::optional<RoutingRecorder> routing_recorder_;  // from the first observer on
  AttentionScratch attention_scratch_;
  StepInputs inputs_;
  std::unique_ptr<Buffers> buffers_;
  PinnedTensor host_usage_, host_tokens_;
  PinnedTensor host_logits_;  // grows: nobody may ever read them
  DeviceTallies::RowBytes row_bytes_;
  int64_t num_logit_rows_ = 0;
  PinnedTensor host_demand_;  // [W, 2] i32: SlotDemand of all ranks
  DispatchDemand demand_;

  // A shape is run on its own once, so that all kernels are loaded before one records them.
  // By rows, bound of positions, and rows that may go to a rank.
  std::map<std::tuple<int64_t, int64_t, int64_t>, std::optional<CapturedGraph>> graphs_;
  std::vector<const std::byte*> recorded_cache_;
};

}  // namespace skipper::cuda
