// The tensors of one checkpoint as the layers use them: H hidden, V vocabulary, I feed-forward width, D head width.
#pragma once

#include <optional>
#include <vector>

#include "kernels/layer_norm.h"
#include "kernels/linear.h"
#include "tensor/tensor.h"

namespace skipper {

struct AttentionWeights {
  PackedLinear q;  // [heads · D, H]
  PackedLinear k;  // [kv_heads · D, H]
  PackedLinear v;  // [kv_heads · D, H]
  PackedLinear o;  // [H, heads · D]
  Tensor q_norm;    // [D]
  Tensor k_norm;    // [D]
};

struct DenseFeedForwardWeights {
  PackedMatrix gate_up;  // gate and up [I, H] with their panels in turn: see experts/gate_up_panels.h
  PackedMatrix down;     // [H, I]
};

struct DecoderLayerWeights {
  Tensor input_norm;  // [H]
  AttentionWeights attention;
  Tensor post_attention_norm;                    // [H]
  std::optional<DenseFeedForwardWeights> dense;  // of dense layers
  PackedMatrix router;                           // [experts, H], of MoE layers: see pack_router()
};

struct VisionBlockWeights {
  LayerNormWeights attention_norm;  // [Hv]
  PackedLinear q, k, v, projection;  // [Hv, Hv]; q, k, v are thirds of one tensor
  LayerNormWeights mlp_norm;        // [Hv]
  PackedLinear fc1;                // [Iv, Hv]
  PackedLinear fc2;                // [Hv, Iv]
};

// Joins merge × merge patches into one decoder token. M = merge² · Hv.
struct PatchMergerWeights {
  LayerNormWeights norm;  // [Hv] before the patches are joined, or [M] after
  PackedLinear fc1;      // [M, M]
  PackedLinear fc2;      // [H, M]
};

struct VisionWeights {
  PackedLinear patch_embedding;  // [Hv, channels · frames · patch · patch]
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
  PackedLinear head;   // [V, H]
  std::optional<VisionWeights> vision;
};

}  // namespace skipper
