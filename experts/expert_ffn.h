// The feed-forward network of all local experts of a layer: gate/up product, SwiGLU, down product.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <span>
#include <utility>
#include <vector>

#include "experts/activation_observer.h"
#include "experts/expert_residence.h"
#include "experts/expert_store.h"
#include "tensor/device_runtime.h"
#include "tensor/tensor.h"

namespace skipper {

// Rows to compute, sorted by expert: row r is token row_index[r], and the rows of the expert in slot e are
// [row_offsets[e], row_offsets[e + 1]).
struct ExpertBatch {
  Tensor tokens;       // [N, H] bf16 or f32
  Tensor row_index;    // [R] i32, each in [0, N)
  Tensor row_offsets;  // [num_local + 1] i32, ascending from 0 to R
};

// Working memory of one micro-batch. Rows are computed in passes of at most `max_rows_per_pass`, so it stays small however
// many rows arrive.
struct ExpertScratch {
  ExpertScratch(const ExpertStore& store, int64_t max_rows_per_pass);

  int64_t max_rows_per_pass;
  Tensor activated;     // [rows, I] f32
  Tensor pass_offsets;  // [max num_local + 1] i32, row_offsets as one pass sees them
};

// Sees what the experts of a layer made of a batch: out[r] of row r, [R, H] f32. Valid during the call, which is on the engine
// thread.
using ExpertOutputObserver = std::function<void(int layer, const ExpertBatch& batch, const Tensor& out, Stream& stream)>;

// Engine thread only. A row's result depends neither on the other rows nor on how they fall into passes.
class ExpertFfn {
 public:
  // `store` is frozen and outlives this object.
  explicit ExpertFfn(const ExpertStore& store);

  // Sees the rows before each product; off by default.
  void set_activation_observer(ActivationObserver observer) { observer_ = std::move(observer); }
  // Sees the rows after both products; off by default.
  void set_output_observer(ExpertOutputObserver observer) { output_observer_ = std::move(observer); }

  // Where experts of kDisk come from; outlives this object. Without one there are none.
  void set_residence(ExpertResidence* residence) { residence_ = residence; }

  // out[r] = down_e · (silu(gate_e · x) ⊙ (up_e · x)) with x = tokens[row_index[r]] and e the row's expert.
  // out [R, H] f32
  void forward(int layer, const ExpertBatch& batch, ExpertScratch& scratch, Tensor& out, Stream& stream) const;

  // Time inside forward() since start.
  std::chrono::nanoseconds time() const { return time_; }

 private:
  struct Pass;
  struct Work;
  // Slots [begin, end) of a layer, and their matrices.
  struct SlotRange {
    int32_t begin = 0;
    int32_t end = 0;
    std::span<const PackedMatrix> gate_up;
    std::span<const PackedMatrix> down;
  };
  SlotRange slots_in_memory(int layer, int32_t begin, int32_t end) const;
  void forward_through_residence(const Work& work) const;
  void forward_given(const Work& work, std::span<const ResidentExpert> given) const;
  void forward_slots(const Work& work, const SlotRange& range) const;
  void forward_pass(const Pass& pass, ExpertScratch& scratch, Tensor& out, Stream& stream) const;

  const ExpertStore& store_;
  ActivationObserver observer_;
  ExpertOutputObserver output_observer_;
  ExpertResidence* residence_ = nullptr;
  mutable std::chrono::nanoseconds time_{0};
  // Of the layer that runs, grown once.
  mutable std::vector<int32_t> used_, on_disk_;
  mutable std::vector<PackedMatrix> gate_up_, down_;
};

}  // namespace skipper
