#include "expert_parallel/router.h"

#include <glog/logging.h>

#include "kernels/gemm.h"

namespace skipper {

RouterBuffers::RouterBuffers(int64_t max_tokens, int64_t num_experts, int64_t top_k)
    : logits(Tensor::empty({max_tokens, num_experts}, DType::kF32)),
      expert_ids(Tensor::empty({max_tokens, top_k}, DType::kI32)),
      expert_weights(Tensor::empty({max_tokens, top_k}, DType::kF32)) {}

Router::Router(const Tensor& weight, const RouterConfig& config) : weight_(weight), config_(config) {
  CHECK(config.top_k > 0 && config.top_k <= num_experts()) << "top " << config.top_k << " of " << num_experts();
}

Routing Router::route(const Tensor& hidden, RouterBuffers& buffers, Stream& stream) const {
  const int64_t num_tokens = hidden.dim(0);
  Tensor logits = buffers.logits.first(num_tokens);
  Routing routing{.expert_ids = buffers.expert_ids.first(num_tokens),
                  .expert_weights = buffers.expert_weights.first(num_tokens)};
  gemm(hidden, {.weight = weight_, .bias = {}}, logits, stream);
  switch (config_.scoring) {
    case RouterScoring::kSoftmax:
      top_k_softmax(logits, config_.normalization, routing.expert_ids, routing.expert_weights, stream);
      break;
  }
  return routing;
}

}  // namespace skipper
