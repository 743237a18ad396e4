// Runs one MoE layer of one rank on a GPU and brings back what every row got and what was counted.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "cluster/operating_point.h"
#include "expert_parallel/cuda/device_moe_layer.h"
#include "tests/expert_parallel/moe_run.h"
#include "tests/support/moe_reference.h"

namespace skipper::cuda {

struct DeviceMoeSetup {
  const MoeWeights& weights;
  std::vector<WeightFormat> expert_formats{};  // of all experts of the model; empty: BF16
  LevelTable levels = levels_with({});
  PayloadFormat payload_format = PayloadFormat::kBF16;
  DType expert_output_dtype = DType::kF32;
  DType combine_dtype = DType::kF32;
  int64_t max_tokens = 64;
  Device device = Device::cuda(0);
  DeviceDispatcher* dispatcher = nullptr;  // null: all experts on this rank
  std::vector<int> node_of_rank{};         // empty: all ranks on one node
};

struct DeviceMoeResult {
  Tensor out;         // [T, H] f32, all on the host
  Tensor expert_ids;  // [T, k] i32
  Tensor routed_ids;  // [T, k] i32
  Tensor usage;       // [T, 4] i32
};

class DeviceMoeRun {
 public:
  DeviceMoeRun(const DeviceMoeSetup& setup, Stream& stream);

  DeviceMoeResult forward(const TokenBatch& batch, const DispatchPlan& plan = {});
  // The same in parts, so that the middle one can be captured into a graph.
  void load(const TokenBatch& batch);
  void queue(const DispatchPlan& plan = {});
  DeviceMoeResult fetch();

  void upload_levels(const LevelTable& levels) { skip_table_.upload(levels, stream_); }
  // All that was counted so far.
  void fetch_counts();
  const PairCounters& pairs() const { return pairs_; }
  const TrafficCounters& traffic() const { return traffic_; }
  const DeviceDispatchShape& dispatch_shape() const { return buffers_.dispatch.shape; }
  // The sticky flag of a capacity that was too small; set to 0 again.
  bool take_overflow();

  // The experts' weights as they were multiplied: dequantised and rounded to BF16. Of a rank that holds all experts.
  MoeWeights multiplied_weights() const;

 private:
  Tensor upload(const Tensor& host);
  Tensor download(const Tensor& gpu);
  void upload_experts();

  DeviceMoeSetup setup_;
  Stream& stream_;
  ExpertPlacement placement_;
  ClusterTopology topology_;
  DeviceSkipTable skip_table_;
  DeviceTallies tallies_;
  DeviceMoeBuffers buffers_;
  DeviceMoeWeights weights_;
  std::unique_ptr<DeviceMoeLayer> layer_;
  PairCounters pairs_{1};
  TrafficCounters traffic_;

  NormedRows x_;
  DeviceTokens tokens_;
  Tensor out_;
};

}  // namespace skipper::cuda
