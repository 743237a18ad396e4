// Counts on the GPU what a dispatch sends and what skipping saved.
#pragma once

#include <cstdint>

#include "expert_parallel/cuda/wire_bytes.h"
#include "tensor/device_runtime.h"
#include "tensor/tensor.h"

namespace skipper::cuda {

// Where the sums lie in DeviceTallies::traffic(): rows by [direction][hop][class], then bytes by [direction][hop].
inline constexpr int64_t kSentRowsAt = 0;
inline constexpr int64_t kSavedRowsAt = 18;
inline constexpr int64_t kWireBytesAt = 36;
inline constexpr int64_t kNumTrafficTallies = 42;

struct TrafficTallyInput {
  const Tensor& routed_ids;      // [T, k] i32, before skipping
  const Tensor& expert_ids;      // [T, k] i32, after it
  const Tensor& token_class;     // [T] u8; other rows than those of a TokenClass are not counted
  const Tensor& rank_of_expert;  // [E] i32
  const Tensor& hop_of_rank;     // [W] i32
  const Tensor& num_sent;        // [W] i32: OutgoingOutput::num_rows
  const Tensor& first_stop;      // [W] i32: the rank to which rows for a rank go first; undefined: itself
};
struct TrafficTallyOutput {
  Tensor& tallies;    // [kNumTrafficTallies] i64, added to
  Tensor& most_rows;  // [1] i32: the larger of what it is and the largest of num_sent
};
// Each row once for each rank that owns one of its experts; also without rows. On its way to another node once for the node, and
// once for each rank there to which its first stop hands it on.
void tally_traffic(const TrafficTallyInput& input, const WireBytes& wire_bytes, const TrafficTallyOutput& output,
                   Stream& stream);

}  // namespace skipper::cuda
