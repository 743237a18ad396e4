#include "expert_parallel/token_policies.h"

#include <numeric>

#include "tensor/dtype.h"

namespace skipper {

TokenPolicies TokenPolicies::defaults(int64_t num_tokens) {
  TokenPolicies policies{.token_class = Tensor::zeros({num_tokens}, DType::kU8),
                         .level = Tensor::zeros({num_tokens}, DType::kU8),
                         .phase = Tensor::zeros({num_tokens}, DType::kU8),
                         .step_token = Tensor::empty({num_tokens}, DType::kI32),
                         .keeps_all = {},
                         .usage = Tensor::zeros({num_tokens, kNumUsageColumns}, DType::kI32)};
  const auto tokens = policies.step_token.span<int32_t>();
  std::iota(tokens.begin(), tokens.end(), 0);
  return policies;
}

TokenPolicies TokenPolicies::first(int64_t count) const {
  return {.token_class = token_class.first(count),
          .level = level.first(count),
          .phase = phase.first(count),
          .step_token = step_token.first(count),
          .keeps_all = keeps_all.defined() ? keeps_all.first(count) : Tensor(),
          .usage = usage};
}

}  // namespace skipper
