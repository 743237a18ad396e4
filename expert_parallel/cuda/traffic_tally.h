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
};
// Each row once for each rank that owns one of its experts. tallies [kNumTrafficTallies] i64, added to; also without rows.
void tally_traffic(const TrafficTallyInput& input, const WireBytes& wire_bytes, Tensor& tallies, Stream& stream);

}  // namespace skipper::cuda
