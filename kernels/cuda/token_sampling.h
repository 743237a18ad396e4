// The next token of every row of logits, greedy or drawn, where the logits are: kernels/token_sampling.h to the same tokens.
#pragma once

#include <cstdint>

#include "kernels/token_sampling.h"
#include "tensor/device_runtime.h"
#include "tensor/tensor.h"

namespace skipper::cuda {

// A larger vocabulary does not fit the shared memory of the blocks that share a row.
inline constexpr int64_t kMostSampledLogits = 400'000;

// ids[l] = the token that samplings[l] takes from logits[l]. What a row asks for is data, so a recorded launch serves any.
// logits [L, V] f32 · samplings [L, sizeof(PackedTokenSampling)] u8 · ids [L] i32
void sample_tokens(const Tensor& logits, const Tensor& samplings, Tensor& ids, Stream& stream);

}  // namespace skipper::cuda
