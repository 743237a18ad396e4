#include "expert_parallel/router.h"

#include <glog/logging.h>

namespace skipper {

RouterBuffers::RouterBuffers(int64_t max_tokens, int64_t num_experts, int64_t top_k)
    : logits(Tensor::empty({max_tokens, num_experts}, DType::kF32)),
      expert_ids(Tensor::empty({max_tokens, top_k}, DType::kI32)),
      expert_weights(Tensor::empty({max_tokens, top_k}, DType::kF32)) {}

PackedMatrix pack_router(const Tensor& weight) {
  const bool is_bf16 = weight.dtype() == DType::kBF16;
  PackedMatrix packed = pack(weight, {.kind = is_bf16 ? WeightKind::kBF16 : WeightKind::kF32, .group_size = 0});
  packed.activations = ActivationFormat::kF32;
  return packed;
}

Router::Router(const PackedMatrix& weight, const RouterConfig& config) : gate_{weight, {}}, config_(config) {
  CHECK(weight.activations == ActivationFormat::kF32) << "routers take activations of 32 bit";
  CHECK(config.top_k > 0 && config.top_k <= num_experts()) << "top " << config.top_k << " of " << num_experts();
}

Routing Router::route(const Tensor& hidden, RouterBuffers& buffers, Stream& stream) const {
  const int64_t num_tokens = hidden.dim(0);
  Tensor logits = buffers.logits.first(num_tokens);
  Routing routing{.expert_ids = buffers.expert_ids.first(num_tokens),
                  .expert_weights = buffers.expert_weights.first(num_tokens)};
  linear(hidden, gate_, logits, stream);
  switch (config_.scoring) {
    case RouterScoring::kSoftmax:
      top_k_softmax(logits, config_.normalization, routing.expert_ids, routing.expert_weights, stream);
      break;
  }
  return routing;
}

}  // namespace skipper
