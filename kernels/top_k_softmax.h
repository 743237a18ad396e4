// Router scores: softmax over all experts, then the k largest.
#pragma once

#include "tensor/device_runtime.h"
#include "tensor/tensor.h"

namespace skipper {

enum class TopKNormalization : uint8_t {
  kNone,        // weights stay softmax probabilities over all experts
  kSumToOne,    // weights are divided by their sum over the top-k
};

// Largest first; ties go to the lower expert id. NaN logits rank below every number.
// logits [T, E] f32 · expert_ids [T, k] i32 · expert_weights [T, k] f32, k <= E
void top_k_softmax(const Tensor& logits, TopKNormalization normalization, Tensor& expert_ids, Tensor& expert_weights,
                   Stream& stream);

namespace cpu {
void top_k_softmax(const Tensor& logits, TopKNormalization normalization, Tensor& expert_ids, Tensor& expert_weights,
                   ThreadPool& workers);
}

}  // namespace skipper
