// Chooses each token's experts: gate logits, scores, the k largest.
#pragma once

#include <cstdint>

#include "expert_parallel/routing.h"
#include "kernels/linear.h"
#include "kernels/top_k_softmax.h"
#include "tensor/device_runtime.h"
#include "tensor/tensor.h"

namespace skipper {

// How logits become scores; a property of the model family.
enum class RouterScoring : uint8_t {
  kSoftmax,  // over all experts (Mixtral, Qwen3-MoE)
};

struct RouterConfig {
  int64_t top_k = 0;
  RouterScoring scoring = RouterScoring::kSoftmax;
  TopKNormalization normalization = TopKNormalization::kSumToOne;
};

// Results of the router for one micro-batch, room for `max_tokens` tokens.
struct RouterBuffers {
  RouterBuffers(int64_t max_tokens, int64_t num_experts, int64_t top_k);

  Tensor logits;          // [max_tokens, E] f32
  Tensor expert_ids;      // [max_tokens, k] i32
  Tensor expert_weights;  // [max_tokens, k] f32
};

// The gate [E, H] as it is stored, bf16 or f32, for activations of 32 bit: rounding them would turn near ties between experts.
PackedMatrix pack_router(const Tensor& weight);

// Engine thread only.
class Router {
 public:
  // weight [E, H] as pack_router() makes it.
  Router(const PackedMatrix& weight, const RouterConfig& config);

  int64_t num_experts() const { return gate_.weight.num_rows; }
  // hidden [T, H] f32. The result is a view of `buffers`, largest weight first; every slot holds an expert.
  Routing route(const Tensor& hidden, RouterBuffers& buffers, Stream& stream) const;

 private:
  PackedLinear gate_;
  RouterConfig config_;
};

}  // namespace skipper
