#include "planning/rank_memory.h"

#include <algorithm>
#include <cmath>

#include "expert_parallel/expert_placement.h"
#include "experts/expert_store.h"
#include "experts/gate_up_panels.h"
#include "kernels/packed_matrix.h"
#include "model/activations.h"
#include "tensor/device_runtime.h"

namespace skipper {
namespace {

// A rank's process without a model: binary, libraries, MPI, HTTP, tokenizer. Measured at rest, with the demo's tokenizer: 11 MB
// alone, 22 MB under mpirun. The rest is left to what threads and the allocator keep, and to rows within kernels.
constexpr size_t kProcessBytes = size_t{64} << 20;
// The same of a process that has opened a GPU: the driver maps more than the rest of the process.
constexpr size_t kGpuProcessBytes = size_t{512} << 20;
// Page-locked memory in which weights wait for their copy to the GPU.
constexpr size_t kUploadBytes = size_t{256} << 20;

constexpr size_t kF32Bytes = 4, kBf16Bytes = 2;
// Of a rank's even share of experts, those that it may own.
constexpr double kReferenceSlack = 1.05;

size_t as_bytes(int64_t elements, size_t element_bytes) { return static_cast<size_t>(elements) * element_bytes; }

// Sums packed matrices and small tensors.
struct WeightSum {
  WeightFormat format;
  size_t num_bytes = 0;

  void matrix(int64_t rows, int64_t columns) { num_bytes += packed_bytes(format, {rows, columns}); }
  // With its bias, stored as BF16.
  void biased(int64_t rows, int64_t columns) {
    matrix(rows, columns);
    vector(rows);
  }
  void vector(int64_t size) { num_bytes += as_bytes(size, kBf16Bytes); }
  void layer_norm(int64_t size) { num_bytes += 2 * as_bytes(size, kBf16Bytes); }
};

void add_attention(const ModelConfig& model, WeightSum& sum) {
  const AttentionConfig& attention = model.attention;
  const int64_t query_size = attention.num_heads * attention.kv.key_dim;
  const int64_t key_size = attention.kv.kv_heads * attention.kv.key_dim;
  const int64_t value_size = attention.kv.kv_heads * attention.kv.value_dim;
  sum.matrix(query_size, model.hidden_size);
  sum.matrix(key_size, model.hidden_size);
  sum.matrix(value_size, model.hidden_size);
  sum.matrix(model.hidden_size, query_size);
  if (attention.has_bias) sum.vector(query_size + key_size + value_size + model.hidden_size);
  sum.vector(2 * attention.kv.key_dim);
}

void add_layer(const ModelConfig& model, int64_t layer, WeightSum& sum) {
  add_attention(model, sum);
  sum.vector(2 * model.hidden_size);
  if (model.is_moe_layer(layer)) {
    sum.num_bytes += packed_bytes({}, {model.moe.num_experts, model.hidden_size});
    return;
  }
  const PackedShape joined = joined_shape({model.dense_intermediate_size, model.hidden_size});
  sum.matrix(joined.num_rows, joined.num_columns);
  sum.matrix(model.hidden_size, model.dense_intermediate_size);
}

void add_merger(const VisionConfig& vision, int64_t norm_size, WeightSum& sum) {
  sum.layer_norm(norm_size);
  sum.biased(vision.merged_size(), vision.merged_size());
  sum.biased(vision.out_hidden_size, vision.merged_size());
}

void add_vision_block(const VisionConfig& vision, WeightSum& sum) {
  sum.layer_norm(vision.hidden_size);
  sum.layer_norm(vision.hidden_size);
  for (int i = 0; i < 4; ++i) sum.biased(vision.hidden_size, vision.hidden_size);  // q, k, v, projection
  sum.biased(vision.intermediate_size, vision.hidden_size);
  sum.biased(vision.hidden_size, vision.intermediate_size);
}

size_t vision_bytes(const VisionConfig& vision) {
  WeightSum sum;  // never quantised
  sum.biased(vision.hidden_size, vision.patch_elements());
  sum.num_bytes += as_bytes(vision.position_grid * vision.position_grid * vision.hidden_size, kF32Bytes);
  for (int64_t block = 0; block < vision.depth; ++block) add_vision_block(vision, sum);
  add_merger(vision, vision.hidden_size, sum);
  for (size_t i = 0; i < vision.deepstack_blocks.size(); ++i) add_merger(vision, vision.merged_size(), sum);
  return sum.num_bytes;
}

// Rows of one image in the tower, and what it leaves for the decoder.
size_t image_buffer_bytes(const ModelConfig& model, const RankSettings& settings) {
  if (!model.vision || settings.max_image_pixels == 0) return 0;
  const VisionConfig& vision = *model.vision;
  const int64_t num_patches = settings.max_image_pixels / (vision.patch_size * vision.patch_size);
  const int64_t row = 8 * vision.hidden_size + vision.intermediate_size + vision.head_dim() / 2 + vision.patch_elements();
  const auto num_levels = static_cast<int64_t>(vision.deepstack_blocks.size()) + 1;
  const int64_t features = num_patches / vision.merge_unit() * vision.out_hidden_size * num_levels;
  return as_bytes(num_patches * row + features, kF32Bytes);
}

// The very objects that a rank makes, whose pages nobody touches.
size_t host_step_bytes(const ModelConfig& model, const RankSettings& settings) {
  const ExpertPlacement placement =
      ExpertPlacement::contiguous({.num_moe_layers = model.num_moe_layers(),
                                   .num_experts = static_cast<int>(std::max<int64_t>(model.moe.num_experts, 1)),
                                   .world_size = settings.world_size});
  // Experts that rest elsewhere: the store takes no memory for them.
  ExpertStoreConfig store{.hidden_size = model.hidden_size, .intermediate_size = model.moe.intermediate_size, .slots = {}};
  for (const std::vector<int32_t>& layer : placement.experts_of(0)) {
    std::vector<ExpertSlot>& slots = store.slots.emplace_back();
    for (const int32_t expert : layer) slots.push_back({expert, {}, ExpertTier::kMapped});
  }
  const ExpertStore experts(store);
  const size_t before = allocated_host_bytes();
  const Activations activations(model, settings.limits);
  const MoeBuffers buffers(moe_buffer_config(model, settings.limits, settings.dispatch), placement, experts);
  return allocated_host_bytes() - before;
}

// The tensors of Decoder::Buffers and DeviceMoeBuffers with their widths, for T rows of a step and L rows of logits.
size_t device_step_bytes(const ModelConfig& model, const RankSettings& settings) {
  const int64_t rows = std::max(settings.limits.max_tokens, settings.limits.max_sequences);
  const int64_t hidden = model.hidden_size, top_k = model.moe.top_k;
  const KvLayout& kv = model.attention.kv;
  const int64_t query = model.attention.num_heads * kv.key_dim;
  const int64_t per_row = hidden * (3 * 4 + 2) + query * (2 + 2) + (query + 2 * kv.kv_heads * kv.key_dim + kv.key_dim) * 4 +
                          model.moe.num_experts * 4 + top_k * 12;
  const int64_t logit_rows = std::max(settings.limits.max_logit_rows, settings.limits.max_sequences);
  const int64_t per_logit_row = hidden * 4 + query * 2 + model.vocab_size * 4;
  const int64_t expert_rows = rows * settings.world_size * top_k;
  const int64_t per_expert_row = hidden * (2 + 4) + model.moe.intermediate_size * 2 + 8;
  const int64_t sent_rows = settings.world_size > 1 ? 2 * rows * settings.world_size : 0;
  const int64_t per_sent_row = hidden * (2 + 4) + top_k * 8;
  return static_cast<size_t>(rows * per_row + logit_rows * per_logit_row + expert_rows * per_expert_row +
                             sent_rows * per_sent_row);
}

size_t kv_bytes(const ModelConfig& model, const RankSettings& settings) {
  return static_cast<size_t>(settings.kv_cache.num_blocks) * KvCache::bytes_per_block(model, settings.kv_cache);
}

// Which experts a rank will own is not known before the plan.
size_t reference_bytes(const ModelConfig& model, const RankSettings& settings) {
  if (!settings.reference_experts) return 0;
  const int64_t num_experts = model.num_moe_layers() * model.moe.num_experts;
  const double share = kReferenceSlack * static_cast<double>(num_experts) / settings.world_size;
  const auto num_owned = std::min(num_experts, static_cast<int64_t>(std::ceil(share)));
  return static_cast<size_t>(num_owned) *
         stored_expert_bytes(*settings.reference_experts, model.hidden_size, model.moe.intermediate_size);
}

}  // namespace

WeightFormat dense_format(const ModelConfig& model, const WeightConfig& weights) {
  if (model.quantization && model.quantization->dense) return *model.quantization->dense;
  return weights.dense.value_or(WeightFormat{});
}

size_t decode_weight_bytes(const ModelConfig& model, const WeightConfig& weights) {
  WeightSum sum{.format = dense_format(model, weights)};
  for (int64_t layer = 0; layer < model.num_layers(); ++layer) add_layer(model, layer, sum);
  sum.vector(model.hidden_size);
  sum.matrix(model.vocab_size, model.hidden_size);
  return sum.num_bytes;
}

size_t dense_weight_bytes(const ModelConfig& model, const WeightConfig& weights) {
  return decode_weight_bytes(model, weights) + (model.vision ? vision_bytes(*model.vision) : 0);
}

size_t embedding_bytes(const ModelConfig& model) { return as_bytes(model.vocab_size * model.hidden_size, kBf16Bytes); }

MemoryUse host_memory_without_experts(const ModelConfig& model, const RankSettings& settings) {
  return {.runtime = kProcessBytes,
          .dense_weights = dense_weight_bytes(model, settings.weights) + embedding_bytes(model),
          .kv_cache = kv_bytes(model, settings),
          .buffers = host_step_bytes(model, settings) + image_buffer_bytes(model, settings),
          .reference_experts = reference_bytes(model, settings)};
}

MemoryUse device_memory_without_experts(const ModelConfig& model, const RankSettings& settings) {
  return {.runtime = settings.reserved_device_bytes,
          .dense_weights = dense_weight_bytes(model, settings.weights) + embedding_bytes(model),
          .kv_cache = kv_bytes(model, settings),
          .buffers = device_step_bytes(model, settings) + image_buffer_bytes(model, settings)};
}

MemoryUse host_memory_beside_device(const ModelConfig& model, const RankSettings& settings) {
  const size_t logits = as_bytes(settings.limits.max_logit_rows * model.vocab_size, kF32Bytes);
  return {.runtime = kGpuProcessBytes, .buffers = kUploadBytes + logits};
}

}  // namespace skipper
