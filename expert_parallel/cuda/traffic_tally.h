// Counts on the GPU what a dispatch sends and what skipping saved.
#pragma once

#include <cstdint>

#include "expert_parallel/cuda/wire_bytes.h"
#include "tensor/device_runtime.h"
#include "tensor/tensor.h"

namespace skipper::cuda {

// Where the sums lie in DeviceTallies::traffic(): hidden rows by [hop][class], then bytes by [direction][hop].
inline constexpr int64_t kSentRowsAt = 0;
inline constexpr int64_t kSavedRowsAt = 9;
inline constexpr int64_t kWireBytesAt = 18;
inline constexpr int64_t kNumTrafficTallies = 24;

struct TrafficTallyInput {
  const Tensor& routed_ids;      // [T, k] i32, before skipping
  const Tensor& expert_ids;      // [T, k] i32, after it
  const Tensor& token_class;     // [T] u8; other rows than those of a TokenClass are not counted
  const Tensor& rank_of_expert;  // [E] i32
  const Tensor& hop_of_rank;     // [W] i32
  const Tensor& num_sent;        // [W] i32: OutgoingOutput::num_rows
};
struct TrafficTallyOutput {
  Tensor& tallies;    // [kNumTrafficTallies] i64, added to
  Tensor& most_rows;  // [1] i32: the larger of what it is and the largest of num_sent
};
// Each row once for each rank that owns one of its experts; also without rows.
void tally_traffic(const TrafficTallyInput& input, const WireBytes& wire_bytes, const TrafficTallyOutput& output,
                   Stream& stream);

}  // namespace skipper::cuda
