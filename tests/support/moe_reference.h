// The MoE layer written from its definition: a loop over tokens and experts in double precision, no code of the product.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tensor/tensor.h"

namespace skipper {

struct MoeShape {
  int64_t hidden_size = 16;
  int64_t intermediate_size = 8;
  int64_t num_experts = 8;
  int64_t top_k = 2;
};

// One MoE layer. Values are bf16, as in a checkpoint.
struct MoeWeights {
  MoeShape shape;
  Tensor router;   // [E, H]
  Tensor gate_up;  // [E, 2·I, H], gate rows first
  Tensor down;     // [E, H, I]
};
MoeWeights random_moe_weights(const MoeShape& shape, uint32_t seed);

struct ReferencePair {
  int32_t expert = 0;
  double weight = 0.0;
};

// Softmax over all experts, the top_k largest (ties: lower id), weights divided by their sum.
std::vector<ReferencePair> reference_routing(const MoeWeights& weights, std::span<const float> x);

// down · (silu(gate · x) ⊙ (up · x))
std::vector<double> reference_expert(const MoeWeights& weights, int32_t expert, std::span<const float> x);

// Σ weight · expert(x) over `pairs`.
std::vector<double> reference_moe(const MoeWeights& weights, std::span<const ReferencePair> pairs,
                                  std::span<const float> x);

// One token of the pair rule.
struct ReferenceRule {
  float alpha = 1.0f;
  float tau = 0.0f;
  bool is_protected = false;
  bool protect_top1 = false;
};

// The ids with −1 where s = alpha · w / (Σ w + 1e-20) is below tau; w in slot order, FP32 (the rule is defined so).
std::vector<int32_t> reference_skip(std::span<const int32_t> ids, std::span<const float> weights,
                                    const ReferenceRule& rule);

}  // namespace skipper
