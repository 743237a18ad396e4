// Takes rows in GPU memory to the ranks of other nodes once per node, where a partner hands them on to its neighbours.
#pragma once

#include <cstdint>
#include <vector>

#include "cluster/cluster_topology.h"
#include "cluster/node_grid.h"
#include "comm/nccl_communicator.h"
#include "expert_parallel/cuda/device_dispatch_buffers.h"
#include "expert_parallel/cuda/wire_bytes.h"
#include "kernels/cuda/decoder_rows.h"
#include "kernels/cuda/expert_rows.h"
#include "tensor/cuda/pinned_tensor.h"
#include "tensor/device_runtime.h"
#include "tensor/tensor.h"

namespace skipper::cuda {

// Where the experts of a layer are, E of them; [E] i32 each.
struct RelayMaps {
  Tensor number_of_expert;  // 0, 1, ...
  Tensor node_of_expert;
  Tensor place_of_expert;   // of its rank on that node
  Tensor slot_of_expert;    // at that rank
};

struct RelayInput {
  const NormedRows& x;           // [T, H]
  const Tensor& expert_ids;      // [T, k] i32, −1 = none
  const Tensor& expert_weights;  // [T, k] f32
  const RelayMaps& maps;
};

// Fills the arrived_... tensors of DeviceDispatchBuffers with what direct messages would have brought, bit for bit and slot for
// slot; what comes back goes directly. With exact counts alone, at a capacity that loses no row: the host waits twice.
//
//   source (node n, place i)     rows for each node m, once, with (expert, weight) of that node's pairs → partner (m, i)
//   partner (m, i)               of the rows of each source (n, i): those for each neighbour (m, p), with (slot, weight) → (m, p)
//   destination (m, p)           rows of source (n, i) in the slots of that source, ascending token, as if it had sent them
//
// Engine thread only; all ranks make the same calls.
class NodeRelay {
 public:
  // All references outlive this object. Memory for the largest plan of the buffers' shape.
  NodeRelay(NcclCommunicator& data, const ClusterTopology& topology, const NodeGrid& grid, const DeviceDispatchShape& shape);

  const NodeGrid& grid() const { return grid_; }

  // After plan_outgoing() over all ranks, which filled buffers.num_sent. Returns what this rank puts on the wire.
  WireBytes dispatch(const RelayInput& input, int64_t capacity, DeviceDispatchBuffers& buffers, Stream& stream);

 private:
  // The rows of one message.
  struct Rows {
    Tensor payload, ids, weights;
  };
  void pack_by_node(const RelayInput& input, int64_t capacity, DeviceDispatchBuffers& buffers, Stream& stream);
  void send_to_partners(int64_t capacity, DeviceDispatchBuffers& buffers, Stream& stream);
  void pack_by_neighbour(const RelayMaps& maps, int64_t capacity, DeviceDispatchBuffers& buffers, Stream& stream);
  void send_to_neighbours(int64_t capacity, DeviceDispatchBuffers& buffers, Stream& stream);
  void push_rows(int peer, const Rows& send, Rows receive);
  WireBytes wire_bytes(const DeviceDispatchBuffers& buffers) const;
  int32_t count(int64_t row, int64_t column) const { return host_counts_.tensor().row<int32_t>(row)[column]; }

  NcclCommunicator& data_;
  const ClusterTopology& topology_;
  const NodeGrid grid_;
  Tensor row_slot_;           // [C · max(nodes, ranks per node)] i32: scratch
  Tensor node_counts_;        // [2, nodes] i32: rows for each node; rows that its partner there had for this one
  Tensor neighbour_counts_;   // [nodes, ranks per node] i32: of the rows from partner n, those for each neighbour
  Tensor relayed_rows_;       // [nodes · C, H] bf16 or [.., coded row] u8: of partner n from row n · C on
  Tensor relayed_ids_;        // [nodes · C, k] i32: experts of this node, −1 = none
  Tensor relayed_weights_;    // [nodes · C, k] f32
  PinnedTensor host_counts_;  // [2 + nodes, max(nodes, ranks per node)] i32: node_counts_, then neighbour_counts_
  std::vector<PeerTransfer> transfers_;
};

}  // namespace skipper::cuda
