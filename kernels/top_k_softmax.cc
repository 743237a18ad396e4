#include "kernels/top_k_softmax.h"

#include "kernels/operand_checks.h"

namespace skipper {

void top_k_softmax(const Tensor& logits, TopKNormalization normalization, Tensor& expert_ids, Tensor& expert_weights,
                   Stream& stream) {
  check_on_host("top_k_softmax", {&logits, &expert_ids, &expert_weights});
  CHECK_EQ(logits.shape().rank(), 2) << "top_k_softmax: logits " << logits.shape().to_string();
  check_f32("top_k_softmax", logits, logits.shape());
  CHECK(expert_ids.shape().rank() == 2 && expert_ids.dtype() == DType::kI32)
      << "top_k_softmax: expert_ids " << expert_ids.shape().to_string();
  CHECK_EQ(expert_ids.dim(0), logits.dim(0)) << "top_k_softmax: one row of ids per token";
  CHECK_LE(expert_ids.dim(1), logits.dim(1)) << "top_k_softmax: more chosen than there are experts";
  check_f32("top_k_softmax", expert_weights, expert_ids.shape());
  cpu::top_k_softmax(logits, normalization, expert_ids, expert_weights, stream.workers());
}

}  // namespace skipper
