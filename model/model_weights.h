// The tensors of one checkpoint as the layers use them: H hidden, V vocabulary, I feed-forward width, D head width.
#pragma once

#include <optional>
#include <vector>

#include "kernels/gemm.h"
#include "kernels/layer_norm.h"
#include "tensor/tensor.h"

namespace skipper {

struct AttentionWeights {
  LinearWeights q;  // [heads · D, H]
  LinearWeights k;  // [kv_heads · D, H]
  LinearWeights v;  // [kv_heads · D, H]
  LinearWeights o;  // [H, heads · D]
  Tensor q_norm;    // [D]
  Tensor k_norm;    // [D]
};

struct DenseFeedForwardWeights {
  LinearWeights gate_up;  // [2·I, H], gate rows first
  LinearWeights down;     // [H, I]
};

struct DecoderLayerWeights {
  Tensor input_norm;  // [H]
  AttentionWeights attention;
  Tensor post_attention_norm;                    // [H]
  std::optional<DenseFeedForwardWeights> dense;  // of dense layers
  Tensor router;                                 // [experts, H], of MoE layers
};

struct VisionBlockWeights {
  LayerNormWeights attention_norm;  // [Hv]
  LinearWeights q, k, v, projection;  // [Hv, Hv]; q, k, v are thirds of one tensor
  LayerNormWeights mlp_norm;        // [Hv]
  LinearWeights fc1;                // [Iv, Hv]
  LinearWeights fc2;                // [Hv, Iv]
};

// Joins merge × merge patches into one decoder token. M = merge² · Hv.
struct PatchMergerWeights {
  LayerNormWeights norm;  // [Hv] before the patches are joined, or [M] after
  LinearWeights fc1;      // [M, M]
  LinearWeights fc2;      // [H, M]
};

struct VisionWeights {
  LinearWeights patch_embedding;  // [Hv, channels · frames · patch · patch]
  Tensor position_table;          // [grid · grid, Hv] f32
  std::vector<VisionBlockWeights> blocks;
  PatchMergerWeights merger;
  std::vector<PatchMergerWeights> deepstack_mergers;
};

// Everything but the experts.
struct ModelWeights {
  Tensor embedding;  // [V, H]
  std::vector<DecoderLayerWeights> layers;
  Tensor final_norm;   // [H]
  LinearWeights head;  // [V, H]
  std::optional<VisionWeights> vision;
};

}  // namespace skipper
