// The whole model of one rank: embed, splice image features, decoder layers, norm, logits.
#pragma once

#include <chrono>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "cluster/cluster_topology.h"
#include "cluster/operating_point.h"
#include "comm/communicator.h"
#include "expert_parallel/dispatch_config.h"
#include "expert_parallel/dispatch_demand.h"
#include "expert_parallel/expert_placement.h"
#include "expert_parallel/moe_layer.h"
#include "expert_parallel/pair_counters.h"
#include "expert_parallel/traffic_counters.h"
#include "experts/activation_observer.h"
#include "experts/expert_ffn.h"
#include "model/batch_input.h"
#include "model/disk_config.h"
#include "model/expert_assignment.h"
#include "model/expert_tiers.h"
#include "model/image_patches.h"
#include "model/kv_cache.h"
#include "model/load_queue.h"
#include "model/model_config.h"
#include "model/step_limits.h"
#include "model/step_output.h"
#include "model/weight_config.h"
#include "tensor/tensor.h"

namespace skipper {

class DiskResidence;
class NcclCommunicator;

// Decode steps run on a GPU as CUDA graphs; without them every kernel is launched on its own, with the same bits. For debugging.
enum class GraphUse : uint8_t { kDecodeSteps, kNone };

// Rows of prompts go from GPU to GPU over the network once per node where there are several nodes of equally many ranks, more
// than one; or always directly, with the same bits.
enum class NodeRelayUse : uint8_t { kPrompts, kNone };

// What one rank shares with the others, and where it computes. All references outlive the model.
struct ParallelContext {
  Communicator& data;
  const ClusterTopology& topology;
  const LevelTable& levels;
  DispatchConfig formats = {};  // of hidden rows between ranks; the same on every rank
  Device device = Device::host();        // of the same kind on every rank
  NcclCommunicator* gpu_data = nullptr;  // how the GPUs of several ranks exchange rows
  GraphUse graphs = GraphUse::kDecodeSteps;
  NodeRelayUse node_relay = NodeRelayUse::kPrompts;
};

// How the weights of a rank get into its memory.
struct WeightLoading {
  WeightConfig formats = {};
  ThreadPool& workers = ThreadPool::caller_only();
  LoadProgress progress = nullptr;
  // On a GPU: where its experts rest, by memory or, where a table is given, as it says.
  ExpertTierConfig gpu_experts = {};
  std::optional<ExpertTiers> expert_tiers = std::nullopt;
  // Where each expert lives and in which format; formats.experts and the two above do not count then. Without it ranks own equal
  // blocks of experts.
  std::optional<ExpertAssignment> assignment = std::nullopt;
  // On a CPU: where the experts rest that the assignment puts on disk.
  std::optional<DiskConfig> disk = std::nullopt;
};

// Where the weights of this rank lie.
struct WeightMemory {
  // Used in place, in the checkpoint's mapping: the embedding table, and matrices of kMapped (model/weight_config.h).
  size_t mapped_bytes = 0;
  size_t dense_bytes = 0;             // dense matrices, packed, mapped or not
  size_t expert_bytes = 0;            // experts of this rank, packed, mapped or not
  size_t resident_mapping_bytes = 0;  // of the whole mapping, what is used in place included
  size_t gpu_bytes = 0;               // of a model on a GPU, staging of experts included
  size_t pinned_bytes = 0;            // its experts in page-locked host memory; its other weights rest on the GPU alone
};

// Engine thread only. All ranks call forward() together, also with zero tokens.
class MultimodalModel {
 public:
  // Reads the weights of this rank from the checkpoint directory: everything dense, and the experts it owns.
  // Throws InvalidFile naming file and tensor, InvalidRequest for formats that the checkpoint cannot be loaded in,
  // InvalidFile for an expert that is not the one whose hash the assignment holds.
  MultimodalModel(const std::filesystem::path& directory, const ModelConfig& config, const ParallelContext& parallel,
                  const StepLimits& limits, const WeightLoading& loading = {});
  ~MultimodalModel();

  const ModelConfig& config() const;
  Device device() const;

  // The vision tower over new images, no collective inside. Result rows in the order of the images. Throws InvalidRequest
  // when the model has no vision tower.
  ImageFeatures encode_images(std::span<const ImagePatches> images, Stream& stream);

  // One step: logits [L, vocab_size] of batch.logit_rows, or on a GPU the token sampled from each row where batch.logit_use asks
  // for no more. Valid until the next call. A row's bits depend neither on the other rows, nor on how its sequence was cut into
  // steps, nor on the rank that owns it. Cache and stream are of the model's device.
  StepOutput forward(const BatchInput& batch, KvCache& cache, Stream& stream);

  // Row t: what token t of the last forward() cost, summed over the layers. [>= T, kNumUsageColumns] i32, of a
  // GPU kNumGpuUsageColumns; valid until the next.
  Tensor token_usage() const;
  // Time that this rank spent in its experts since start. On a GPU a few steps are timed and stand for the others.
  std::chrono::nanoseconds expert_time() const;
  // Bytes that one hidden row costs on its way to another rank and back.
  int64_t bytes_per_sent_row() const;
  // What the last forward() asked of the room that BatchInput::shape_of_all gave it.
  DispatchDemand dispatch_demand() const;

  // Throws InvalidRequest naming level and key where the device cannot run a rule. Thread-safe.
  void check_levels(const LevelTable& levels) const;

  // Rounds the experts of one layer to other formats, formats[slot], from the checkpoint anew. Between steps. Throws
  // InvalidRequest on a GPU, and for a checkpoint that is quantised already.
  void set_expert_formats(int moe_layer, std::span<const WeightFormat> formats, ThreadPool& workers);

  // The experts of `other` serve from the next step on, and the same experts that served, in other formats, are in `other`. Those
  // that `other` has not stay. Moves no weight. On a CPU; between steps.
  void exchange_experts(ExpertStore& other);

  // Which rank owns which expert.
  const ExpertPlacement& placement() const;

  // The step that the next forward belongs to, for messages.
  void set_step(int64_t step);
  // Sees the routing of every MoE layer; off by default. On a GPU after the forward pass, whose decode steps then cost more:
  // change it between steps.
  void set_routing_observer(const RoutingObserver& observer);
  // Pairs of this rank's tokens that each expert ran since start: [MoE layers, classes, experts]. A GPU counts them by itself,
  // the CPU leaves it to an observer: empty.
  std::vector<int64_t> expert_loads();
  // Sees the inputs of all decoder matrices of this rank, its experts included; off by default. Throws InvalidRequest on a GPU.
  void set_activation_observer(const ActivationObserver& observer);
  // Sees the outputs of this rank's experts; off by default. Throws InvalidRequest on a GPU.
  void set_expert_output_observer(const ExpertOutputObserver& observer);

  // Sums since start of this rank.
  const TrafficCounters& traffic() const;
  const PairCounters& pairs() const;
  // [MoE layer][phase] of this rank. Empty on a GPU: there the decision is part of the routing kernel.
  std::span<const SkipCost> skip_costs() const;
  // Mean over the experts of this rank, scales included; 0 for a rank without experts.
  double expert_bits_per_weight() const;
  WeightMemory weight_memory() const;
  // The experts of this rank; of a model on a GPU without their weights.
  const ExpertStore& expert_store() const;
  // What reading experts from disk has cost; null without experts on disk.
  const DiskResidence* disk_residence() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace skipper
