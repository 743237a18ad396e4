// The MoE layer of one rank on its GPU: route, skip, dispatch, experts, combine, as expert_parallel/moe_layer.h on the CPU.
#pragma once

#include <cstdint>
#include <span>

#include "cluster/cluster_topology.h"
#include "expert_parallel/cuda/device_dispatcher.h"
#include "expert_parallel/cuda/device_skip_table.h"
#include "expert_parallel/cuda/device_tallies.h"
#include "expert_parallel/cuda/expert_staging.h"
#include "expert_parallel/cuda/host_experts.h"
#include "expert_parallel/cuda/expert_timer.h"
#include "expert_parallel/expert_placement.h"
#include "kernels/cuda/decoder_rows.h"
#include "kernels/cuda/device_matrix.h"
#include "kernels/top_k_softmax.h"
#include "tensor/device_runtime.h"
#include "tensor/tensor.h"

namespace skipper::cuda {

struct DeviceMoeConfig {
  int layer = 0;      // index among all decoder layers, for messages
  int moe_layer = 0;  // index among the MoE layers
  int64_t hidden_size = 0;
  int64_t num_experts = 0;
  int64_t top_k = 0;
  int64_t intermediate_size = 0;
  TopKNormalization normalization = TopKNormalization::kSumToOne;
};

struct DeviceMoeWeights {
  Tensor router;           // [E, H] bf16 or f32
  DeviceMatrices gate_up;  // [2 · I, H] of each expert of this rank, in slot order, as pack_device_gate_up() makes them
  DeviceMatrices down;     // [H, I] of the same
  HostExpertMatrices host_experts = {};  // those that are absent there
};

// What the MoE layers of a rank share. All references outlive the layers.
struct DeviceMoeContext {
  const ExpertPlacement& placement;
  const ClusterTopology& topology;
  const DeviceSkipTable& skip_table;
  DeviceTallies& tallies;
  DeviceDispatcher* dispatcher = nullptr;  // not used in a world of one
  ExpertStaging* staging = nullptr;        // of experts that rest on the host; without it they are always read in place
  HostExperts* host_experts = nullptr;     // needed where a layer has experts that the host computes
  ExpertTimer* timer = nullptr;
};

// TokenPolicies on the GPU. T rows; class 255 is padding, which meets no expert and is not counted.
struct DeviceTokens {
  Tensor token_class;  // [T] u8
  Tensor level;        // [T] u8
  Tensor phase;        // [T] u8
  Tensor step_token;   // [T] i32, row of `usage`
  Tensor usage;        // [tokens of the step, 4] i32, added to
};

struct DeviceMoeInput {
  const NormedRows& x;         // [T, H], f32 and bf16
  const DeviceTokens& tokens;  // [T]
  DispatchPlan dispatch{};     // not read in a world of one
};

struct DeviceMoeBufferConfig {
  int64_t max_tokens = 0;  // rows of one rank in one micro-batch, padding included
  int64_t hidden_size = 0;
  int64_t num_experts = 0;
  int64_t top_k = 0;
  int64_t intermediate_size = 0;
  int max_local_experts = 0;
  int world_size = 1;
  PayloadFormat payload_format = PayloadFormat::kBF16;  // of rows on their way to their experts: bf16, int8 or fp8
  DType expert_output_dtype = DType::kF32;              // of rows on their way from an expert to their weighted sum: f32 or bf16
  DType combine_dtype = DType::kF32;                    // of partial sums on their way back to their rank: f32 or bf16
};

// Memory of one micro-batch, shared by all MoE layers of a model; allocated once. C = max_tokens, W = world size, and
// R = W · C · min(k, max_local_experts), the most rows that experts can get.
struct DeviceMoeBuffers {
  DeviceMoeBuffers(const DeviceMoeBufferConfig& config, Device device);

  DeviceMoeBufferConfig config;
  Tensor row_numbers;     // [C + 1] i32: 0, 1, 2, ...; of one rank: its count of rows, and the place of each row
  Tensor logits;          // [C, E] f32
  Tensor routed_ids;      // [C, k] i32
  Tensor expert_ids;      // [C, k] i32, after skipping
  Tensor expert_weights;  // [C, k] f32
  Tensor routed_weights;  // [C, k] f32, before skipping; written while `keeps_routed_weights`
  bool keeps_routed_weights = false;
  DeviceDispatchBuffers dispatch;
  Tensor row_offsets;    // [max_local_experts + 1] i32
  Tensor row_index;      // [R] i32
  Tensor row_of_pair;    // [W · C, k] i32
  Tensor sorted_rows;    // [R, H] bf16
  Tensor activated;      // [R, I] bf16
  Tensor expert_output;  // [R, H] expert_output_dtype
};

// A layer between two norms of the residual stream, as a decoder has it.
struct MoeSublayer {
  Tensor& hidden;          // [T, H] f32, residual stream
  Tensor& delta;           // [T, H] f32: what attention adds to it, then memory of the layer; undefined afterwards
  NormWeights norm;        // of the layer's input
  NormWeights next_norm;   // of what follows
  NormedRows& normed;      // f32 and bf16, memory of the layer; its bf16 receives what follows
};

// Engine thread only. All ranks call forward() together and with the same DispatchPlan, also with no rows. But for
// DispatchMode::kExactCounts and its own experts the host waits for nothing: forward() can be captured into a CUDA graph.
class DeviceMoeLayer {
 public:
  DeviceMoeLayer(const DeviceMoeConfig& config, DeviceMoeWeights weights, const DeviceMoeContext& context);

  const DeviceMoeConfig& config() const { return config_; }

  // out = Σ over the experts that run of weight · expert(x), exactly 0 for a row without any.
  // out [T, H] f32, overwritten: what is to be added to the residual stream
  void forward(const DeviceMoeInput& input, DeviceMoeBuffers& buffers, Tensor& out, Stream& stream) const;
  // hidden += delta; hidden += forward(norm(hidden)); normed.bf16 = next_norm(hidden). Few rows of one rank take four kernels
  // less, to the same bits.
  void forward_sublayer(const DeviceTokens& tokens, const DispatchPlan& dispatch, const MoeSublayer& sublayer,
                        DeviceMoeBuffers& buffers, Stream& stream) const;

 private:
  struct ExpertSource;
  ExpertSource experts() const;
  bool is_alone() const { return context_.placement.world_size() == 1; }
  // The rows as experts get them when they do not travel.
  Tensor rounded_rows(const NormedRows& x, DeviceMoeBuffers& buffers, Stream& stream) const;
  void route(const DeviceMoeInput& input, DeviceMoeBuffers& buffers, Stream& stream) const;
  // Calls route_with(RouteInput, RouteOutput).
  template <typename RouteWith>
  void with_routing(const DeviceTokens& tokens, DeviceMoeBuffers& buffers, const RouteWith& route_with) const;
  bool can_choose_at_once(int64_t num_tokens, const DeviceMoeBuffers& buffers) const;
  void run_alone_at_once(const DeviceTokens& tokens, const MoeSublayer& sublayer, DeviceMoeBuffers& buffers,
                         Stream& stream) const;
  template <typename AddUp>
  void run_alone(const DeviceMoeInput& input, DeviceMoeBuffers& buffers, const AddUp& add_up, Stream& stream) const;
  void map_nodes(std::span<const ExpertHome> homes, Device device);
  void pack_rows(const NormedRows& x, const OutgoingOutput& outgoing, const DeviceMoeBuffers& buffers, Tensor& rows,
                 Stream& stream) const;
  void send_rows(const DeviceMoeInput& input, DeviceMoeBuffers& buffers, Stream& stream) const;
  void forward_across_ranks(const DeviceMoeInput& input, DeviceMoeBuffers& buffers, Tensor& out, Stream& stream) const;

  DeviceMoeConfig config_;
  DeviceMoeWeights weights_;
  DeviceMoeContext context_;
  int own_rank_ = 0;
  int staging_number_ = -1;  // of this layer in context_.staging; −1: all experts rest on the GPU, or none is ever staged
  int host_number_ = -1;     // in context_.host_experts; −1: the GPU computes all experts
  Tensor rank_of_expert_;  // [E] i32
  Tensor slot_of_expert_;  // [E] i32
  Tensor hop_of_rank_;     // [W] i32
  RelayMaps relay_maps_;   // of a topology with a NodeGrid, as is:
  Tensor first_stop_;      // [W] i32
};

}  // namespace skipper::cuda
