// How rows are dispatched between GPUs, and the memory in which they go out and arrive.
#pragma once

#include <cstdint>

#include "expert_parallel/payload_format.h"
#include "tensor/cuda/pinned_tensor.h"
#include "tensor/device_runtime.h"
#include "tensor/dtype.h"
#include "tensor/tensor.h"

namespace skipper::cuda {

enum class DispatchMode : uint8_t {
  // The ranks tell one another their counts and send exactly the rows. The host waits for the counts once per layer.
  kExactCounts,
  // As kExactCounts, but rows for another node cross the network once, to a rank that hands them on (node_relay.h). The host
  // waits twice per layer.
  kExactCountsByNode,
  // Every rank sends `capacity` rows to every other, whatever is in them. Nothing waits; can be captured into CUDA graphs.
  kFixedSlots,
};

// The same on every rank of the group; chosen with the step.
struct DispatchPlan {
  DispatchMode mode = DispatchMode::kFixedSlots;
  // Rows that have room on their way from one rank to another. A token goes to a rank once, so the rows of the step's largest
  // rank always suffice; with fewer, rows that find no room are lost and DeviceDispatchBuffers::overflow becomes 1.
  int64_t capacity = 0;
  // The way back also tells every rank what each rank's rows have asked for since clear_demand(), in
  // DeviceDispatchBuffers::demand_of_ranks. For the last layer of a step.
  bool tells_demand = false;
};

// What the rows of one rank asked for in the layers of a step.
struct SlotDemand {
  int32_t has_overflown = 0;  // 1: some found no room
  int32_t most_rows = 0;      // largest number of rows for one rank in one layer, those without room included
};

struct DeviceDispatchShape {
  int64_t max_tokens = 0;  // rows of one rank in one micro-batch, and the largest capacity
  int64_t hidden_size = 0;
  int64_t top_k = 0;
  int world_size = 1;
  PayloadFormat payload_format = PayloadFormat::kBF16;  // of hidden rows on their way to the experts: BF16 or coded
  DType combine_dtype = DType::kF32;                    // of partial sums on their way back
};

// Memory of one micro-batch, C = max_tokens, W = world_size; row r · capacity + i is row i from or to rank r.
struct DeviceDispatchBuffers {
  // Throws InvalidFile on a payload format that GPUs do not send (f32).
  DeviceDispatchBuffers(const DeviceDispatchShape& shape, Device device);

  DeviceDispatchShape shape;
  Tensor demand;           // [2] i32: SlotDemand of this rank, sticky
  Tensor overflow;         // [1] i32: its first number
  Tensor most_rows;        // [1] i32: its second
  Tensor demand_of_ranks;  // [W, 2] i32: of all ranks, after a combine with DispatchPlan::tells_demand
  // Before the first layer of a step, in stream order; can be captured.
  void clear_demand(Stream& stream);

  // At the source.
  Tensor num_sent;       // [W] i32
  Tensor row_slot;       // [C, W] i32
  Tensor token_of_row;   // [W · C] i32
  Tensor sent_slot_ids;  // [W · C, k] i32
  Tensor sent_weights;   // [W · C, k] f32
  Tensor sent_rows;      // [W · C, H] bf16, or [W · C, coded row] u8
  Tensor returned_sums;  // [W · C, H] combine type

  // At the destination.
  Tensor num_arrived;       // [W] i32
  Tensor arrived_slot_ids;  // [W · C, k] i32
  Tensor arrived_weights;   // [W · C, k] f32
  Tensor arrived_payload;   // as sent_rows; of BF16 the same memory as arrived_rows
  Tensor arrived_rows;      // [W · C, H] bf16
  Tensor partial_sums;      // [W · C, H] combine type

  PinnedTensor host_counts;  // [2, W] i32: sent and arrived, of exact counts
  Tensor no_demand;          // [2] i32: zeros
};

}  // namespace skipper::cuda
