// Takes rows in GPU memory to the ranks of their experts and brings the weighted sums back.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "cluster/cluster_topology.h"
#include "comm/nccl_communicator.h"
#include "expert_parallel/cuda/device_dispatch_buffers.h"
#include "expert_parallel/cuda/node_relay.h"
#include "expert_parallel/cuda/wire_bytes.h"
#include "tensor/device_runtime.h"

namespace skipper::cuda {

// Engine thread only; all ranks make the same calls.
class DeviceDispatcher {
 public:
  // All references outlive this object.
  DeviceDispatcher(NcclCommunicator& data, const ClusterTopology& topology);

  int rank() const { return data_.rank(); }
  int world_size() const { return data_.size(); }

  // The step that the next calls belong to, for messages.
  void set_step(int64_t step) { step_ = step; }

  // Blocks until all work queued on the stream so far is done. Throws CommError when a rank it waits for has gone.
  void synchronize(Stream& stream) { data_.synchronize(stream); }

  // After plan_outgoing() and pack_outgoing() at `plan.capacity`: rows, pairs and counts go to their ranks. Returns what this
  // rank puts on the wire, the way back included.
  WireBytes dispatch(int layer, const DispatchPlan& plan, DeviceDispatchBuffers& buffers, Stream& stream);
  // Memory for DispatchMode::kExactCountsByNode. True if the topology has several nodes of several ranks each, and as many.
  bool prepare_relay(const DeviceDispatchShape& shape);
  // As dispatch(), in that mode; it packs by itself.
  WireBytes dispatch_by_node(int layer, const RelayInput& input, const DispatchPlan& plan, DeviceDispatchBuffers& buffers,
                             Stream& stream);
  // After the sums of all arrived rows lie in partial_sums: they go back to returned_sums. Of the same micro-batch.
  void combine(int layer, const DispatchPlan& plan, DeviceDispatchBuffers& buffers, Stream& stream);

 private:
  void exchange_counts(DeviceDispatchBuffers& buffers, Stream& stream);
  void queue_counts(DeviceDispatchBuffers& buffers);
  WireBytes wire_bytes(const DispatchPlan& plan, const DeviceDispatchBuffers& buffers) const;
  void add_combine_bytes(const DispatchPlan& plan, const DeviceDispatchBuffers& buffers, WireBytes& bytes) const;

  NcclCommunicator& data_;
  const ClusterTopology& topology_;
  std::optional<NodeRelay> relay_;
  std::vector<PeerTransfer> transfers_;
  int64_t step_ = -1;
};

}  // namespace skipper::cuda
