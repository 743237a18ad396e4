// Moves rows between token order and expert order on a GPU, without the host ever learning how many there are.
//
// Rows arrive in slots: source rank s left its n_s rows in rows [s · capacity, s · capacity + n_s) of one buffer, each with k
// pairs (local expert, weight). On one rank the buffer is the normed rows of the step themselves.
#pragma once

#include "tensor/device_runtime.h"
#include "tensor/tensor.h"

namespace skipper::cuda {

struct ArrivedRows {
  const Tensor& rows;        // [S · capacity, H] bf16
  const Tensor& slot_ids;    // [S · capacity, k] i32: local expert of each pair, −1 = none
  const Tensor& num_rows;    // [S] i32: rows from each source; slots beyond are not read, nor are rows beyond the capacity
  int64_t capacity = 0;
};
struct SortedExperts {
  Tensor& row_offsets;  // [E + 1] i32
  Tensor& row_index;    // [R] i32: arrived row of each sorted row; undefined beyond row_offsets[E]
  Tensor& row_of_pair;  // [S · capacity, k] i32: sorted row of each pair, −1 = none
};
// Stable: within an expert, rows keep their order of arrival, so results do not depend on the launch.
void sort_by_expert(const ArrivedRows& arrived, const SortedExperts& sorted, Stream& stream);

// y[r] = rows[row_index[r]] for r < *num_sorted (= &row_offsets[E] on the GPU). y [R, H] bf16
void gather_sorted(const Tensor& rows, const SortedExperts& sorted, Tensor& y, Stream& stream);

// Both one after the other; one launch where pairs are few.
void sort_and_gather(const ArrivedRows& arrived, const SortedExperts& sorted, Tensor& y, Stream& stream);

// On the sending side: which rows go to which rank, deterministic, in token order.
struct OutgoingInput {
  const Tensor& expert_ids;      // [T, k] i32, −1 = none
  const Tensor& expert_weights;  // [T, k] f32
  const Tensor& rank_of_expert;  // [E] i32
  const Tensor& slot_of_expert;  // [E] i32, local index at its rank
  int world_size = 1;
  int64_t capacity = 0;          // rows per destination that the send buffer has room for
};
struct OutgoingOutput {
  Tensor& num_rows;     // [world] i32: rows for each destination (counted also beyond the capacity)
  Tensor& row_slot;     // [T, world] i32: slot of token t among the rows for rank d, −1 = not sent
  Tensor& token_of_row; // [world · capacity] i32
  Tensor& slot_ids;     // [world · capacity, k] i32: a token's local experts at that rank in their slots, −1 in the others
  Tensor& weights;      // [world · capacity, k] f32
  Tensor& overflow;     // [1] i32, set to 1 when a destination needs more than `capacity`, whose last rows go nowhere; sticky
};
void plan_outgoing(const OutgoingInput& input, const OutgoingOutput& output, Stream& stream);

// Message rows: send[d · capacity + i] = x[token_of_row[d · capacity + i]] for i < num_rows[d].
// x [T, H] bf16 · send [world · capacity, H] bf16
void pack_outgoing(const Tensor& x, const OutgoingOutput& plan, int64_t capacity, Tensor& send, Stream& stream);

}  // namespace skipper::cuda
