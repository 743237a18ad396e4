// Dimensions and semantics of one checkpoint, as its model family defines them.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "expert_parallel/router.h"
#include "kernels/top_k_softmax.h"
#include "model/quantized_checkpoint.h"
#include "model/vision_config.h"

namespace skipper {

// What one token leaves in the KV cache of one layer.
struct KvLayout {
  int64_t kv_heads = 0;
  int64_t key_dim = 0;    // of one head
  int64_t value_dim = 0;  // of one head

  int64_t num_elements() const { return kv_heads * (key_dim + value_dim); }
};

struct RotaryConfig {
  double theta = 10000.0;
  int64_t dim = 0;  // rotated elements of a head
  // Interleaved M-RoPE: how many of the dim / 2 frequencies turn with time, height and width. Absent: plain rope.
  std::optional<std::array<int64_t, 3>> mrope_sections;
};

enum class FeedForwardKind : uint8_t { kDense, kMixtureOfExperts };

enum class ExpertLayout : uint8_t {
  kPerExpert,        // mlp.experts.{e}.{gate,up,down}_proj.weight, each [out, in]
  kFusedTransposed,  // mlp.experts.gate_up_proj [E, H, 2·I] and down_proj [E, I, H]
};

struct AttentionConfig {
  int64_t num_heads = 0;
  bool has_bias = false;  // of the q, k, v and o projections
  KvLayout kv;
};

struct MoeConfig {
  int64_t num_experts = 0;
  int64_t top_k = 0;
  int64_t intermediate_size = 0;  // of one expert
  RouterScoring scoring = RouterScoring::kSoftmax;
  TopKNormalization normalization = TopKNormalization::kSumToOne;
  ExpertLayout layout = ExpertLayout::kPerExpert;
};

struct ModelConfig {
  std::string model_type;   // "qwen3_moe", "qwen3_vl_moe"
  std::string fingerprint;  // model_fingerprint()

  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t dense_intermediate_size = 0;  // of dense feed-forward layers
  int64_t max_position_embeddings = 0;  // longest sequence, prompt and answer
  float rms_norm_epsilon = 1e-6f;
  bool tie_word_embeddings = false;  // the head is the embedding table

  std::vector<FeedForwardKind> feed_forward;  // [num_layers]
  AttentionConfig attention;
  RotaryConfig rotary;
  MoeConfig moe;

  std::vector<int32_t> eos_token_ids;  // ascending; any of them ends an answer
  std::optional<VisionConfig> vision;  // absent in text-only models
  std::optional<QuantizedFormats> quantization;  // of checkpoints written by `skipper quantize`

  std::string text_prefix;    // "model." or "model.language_model."
  std::string vision_prefix;  // "model.visual."

  int64_t num_layers() const { return static_cast<int64_t>(feed_forward.size()); }
  int num_moe_layers() const;
  bool is_moe_layer(int64_t layer) const;
};

// Reads config.json and generation_config.json of a Hugging Face directory (transformers 4 and 5 key styles). Throws
// InvalidFile naming the file, the key and the value: unknown architectures, and whatever changes the mathematics and is not
// supported here. Keys that do not change it are ignored: these files carry many.
ModelConfig load_model_config(const std::filesystem::path& directory);

}  // namespace skipper
