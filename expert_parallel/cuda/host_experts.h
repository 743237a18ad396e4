// Experts of a rank with a GPU that the host computes, with the CPU's kernels, while the GPU computes the others.
//
// The rows of a layer are sorted by expert on the GPU. Those of the host's experts come to page-locked memory, the GPU's products
// leave them out, and the host's results take the places that the GPU's would have had: so every sum has the order it always has,
// and which device computes an expert is the only thing that changes. The host waits for the rows of each layer, so such steps
// are no CUDA graphs: beside what an expert takes a CPU, the launches of a layer are short.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/thread_pool.h"
#include "kernels/packed_matrix.h"
#include "tensor/cuda/pinned_tensor.h"
#include "tensor/cuda/stream_event.h"
#include "tensor/device_runtime.h"
#include "tensor/tensor.h"

namespace skipper::cuda {

// Of one layer, by ascending slot.
struct HostExpertMatrices {
  std::vector<int32_t> slots;
  std::vector<PackedMatrix> gate_up;  // as experts/expert_store.h has them, whose memory they are
  std::vector<PackedMatrix> down;

  bool empty() const { return slots.empty(); }
};

struct HostExpertShape {
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t max_rows = 0;  // that can be sorted in a layer
};

// Sorted rows on the GPU, and what becomes of them.
struct SortedExpertRows {
  const Tensor& row_offsets;  // [E + 1] i32
  const Tensor& rows;         // [R, H] bf16
  Tensor& results;            // [R, H] f32 or bf16
};

// Engine thread only. Rows are computed in passes, so that memory stays small however many there are.
class HostExperts {
 public:
  // `workers` outlives this object. Throws DeviceError without memory.
  HostExperts(const HostExpertShape& shape, ThreadPool& workers, Stream& stream);

  // The next layer that has experts here. Returns its number.
  int add_layer(HostExpertMatrices experts);

  // Queues that the layer's rows come to the host, as far as a pass takes them.
  void collect(int number, const SortedExpertRows& sorted, Stream& stream);
  // After the GPU's products were queued: waits for the rows, computes, and queues that the results return.
  void compute(int number, const SortedExpertRows& sorted, Stream& stream);

 private:
  struct Layer {
    HostExpertMatrices experts;
    Tensor slots;  // [N] i32 on the GPU
  };

  void collect_pass(const Layer& layer, const SortedExpertRows& sorted, int64_t first, Stream& stream);
  void compute_pass(const Layer& layer, int64_t first, Tensor& results);

  Stream host_;
  StreamEvent collected_;
  std::vector<Layer> layers_;
  PinnedTensor offsets_;   // [N + 1] i32
  PinnedTensor rows_;      // [P, H] bf16
  PinnedTensor results_;   // [P, H] f32
  Tensor row_index_;       // [P] i32: 0, 1, ...
  Tensor pass_offsets_;    // [N + 1] i32
  Tensor activated_;       // [P, I] f32
};

}  // namespace skipper::cuda
