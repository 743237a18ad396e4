// What the kernels of a step need to know of its tokens and sequences, brought to the GPU in one copy.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "model/batch_input.h"
#include "tensor/cuda/pinned_tensor.h"
#include "tensor/device_runtime.h"
#include "tensor/tensor.h"

namespace skipper::cuda {

// Sizes of a step's tensors, its padding included: T rows, L logit rows, S sequences that have tokens.
struct StepShape {
  int64_t num_rows = 0;
  int64_t num_logit_rows = 0;
  int64_t num_sequences = 0;
  int64_t num_blocks = 0;     // of one sequence at most
  int64_t max_queries = 1;    // of one sequence in this step; 1: decode
  int64_t max_positions = 1;  // of one sequence, its queries included
};

// The shape of a batch as it is.
StepShape shape_of(const BatchInput& batch, int64_t block_size);

// Rows of padding have id −1, slot −1 and class 255; sequences of padding have no queries.
struct RowTensors {
  Tensor token_class;  // [n] u8
  Tensor level;        // [n] u8
  Tensor phase;        // [n] u8
  Tensor step_token;   // [n] i32, row of the step's usage
  Tensor offsets;      // [2] i32: 0, n
};
struct StepTensors {
  Tensor token_ids;       // [T] i32
  Tensor rotary;          // [T, 3] i32
  Tensor slots;           // [T] i32
  Tensor query_offsets;   // [S + 1] i32
  Tensor first_position;  // [S] i32
  Tensor block_tables;    // [S, num_blocks] i32
  Tensor logit_index;     // [L] i32
  Tensor samplings;       // [L, sizeof(PackedTokenSampling)] u8; greedy where the batch has none
  Tensor usage;           // [T, kNumGpuUsageColumns] i32, zeros: comes with the rest rather than being cleared there
  RowTensors rows;        // of all tokens, n = T
  RowTensors logit_rows;  // of those whose logits are read, n = L
};

// Where the tensors of a step lie in `memory`, which may be null: each at a multiple of 64 bytes. The same for the same shape,
// on the host and on the GPU.
struct StepLayout {
  StepTensors tensors;
  size_t num_bytes = 0;
};
StepLayout lay_out(const StepShape& shape, std::byte* memory, Device device);

// Writes a batch and its padding to host tensors of a shape that is at least shape_of(batch). In a padded shape either all rows
// are logit rows or none is padded.
void write_step(const BatchInput& batch, const StepTensors& host);

// Memory for the largest step, on both sides.
class StepInputs {
 public:
  StepInputs(std::span<const StepShape> largest, Device device);

  // The tensors of the batch on the GPU, in stream order; the last step's copy must be complete. The same addresses for the same
  // shape.
  StepTensors upload(const BatchInput& batch, const StepShape& shape, Stream& stream);

 private:
  PinnedTensor host_;
  Tensor device_;
};

}  // namespace skipper::cuda
