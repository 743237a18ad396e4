// Brings experts that rest in host memory to the GPU layer by layer, ahead of their use, on a stream of its own.
//
// Few rows meet few experts: kernels read those in place over the bus, and only their bytes travel
// (kernels/cuda/device_matrix.h).
// Many rows meet all experts of every layer. Then each layer's are copied as a whole to one of two slots in GPU memory, while
// the GPU works on the layers before, so that a weight crosses the bus once and the bus is busy all the time:
//
//   copies    layer 0 → slot 0 | layer 1 → slot 1 | (slot 0 is free) layer 2 → slot 0 | ...
//   compute         attention 0 | experts 0 ........| attention 1 | experts 1 .........| ...
//
// Both ways give the same bits: the same kernels read the same bytes.
#pragma once

#include <array>
#include <cstddef>
#include <vector>

#include "kernels/cuda/device_matrix.h"
#include "tensor/cuda/stream_event.h"
#include "tensor/device_runtime.h"
#include "tensor/tensor.h"

namespace skipper::cuda {

// The matrices of a layer's experts, wherever they rest.
struct ExpertMatricesOnGpu {
  DeviceMatrices gate_up;  // [2 · I, H] each, as pack_device_gate_up() makes them
  DeviceMatrices down;     // [H, I] each

  size_t num_host_bytes() const { return gate_up.num_host_bytes() + down.num_host_bytes(); }
};

// Engine thread only. The layers of a step that have experts on the host are used in their order; a step may leave some out.
class ExpertStaging {
 public:
  static constexpr int kNumSlots = 2;

  // GPU memory that staging takes where no layer has more than `most_bytes` on the host.
  static size_t slot_bytes(size_t most_bytes);

  // Throws DeviceError without memory for the slots.
  ExpertStaging(size_t most_bytes, Device device);

  // The next layer with experts on the host. Returns its number.
  int add_layer(const ExpertMatricesOnGpu& experts);

  // Before the kernels of a step: its layers below `num_staged` will be used from the slots, and the first copies start.
  void begin_step(int num_staged);

  // Layer `number` for the kernels queued next: copies that are complete by then, or null when it is not staged in this step.
  const ExpertMatricesOnGpu* acquire(int number, Stream& compute);
  // After the last kernel that uses what acquire() gave: its slot takes the copies of a later layer.
  void release(int number, Stream& compute);

  int num_layers() const { return static_cast<int>(layers_.size()); }
  // Copied since start.
  size_t num_copied_bytes() const { return num_copied_bytes_; }

 private:
  struct Slot {
    Tensor memory;
    StreamEvent filled;
    StreamEvent released;
  };
  Slot& slot_of(int number) { return slots_[static_cast<size_t>(number % kNumSlots)]; }
  void queue_copies_up_to(int number);
  void queue_copy(const DeviceMatrices& staged);

  Stream copies_;
  std::array<Slot, kNumSlots> slots_;
  std::vector<ExpertMatricesOnGpu> layers_;  // as they are read from their slots
  int num_staged_ = 0;  // in this step
  int next_ = 0;        // to be copied
  size_t num_copied_bytes_ = 0;
};

}  // namespace skipper::cuda
