#include "model/activations.h"

#include <numeric>

namespace skipper {
namespace {

DecoderRows make_rows(const ModelConfig& config, int64_t capacity) {
  return {.hidden = Tensor::empty({capacity, config.hidden_size}, DType::kF32),
          .normed = Tensor::empty({capacity, config.hidden_size}, DType::kF32),
          .angles = Tensor::empty({capacity, config.rotary.dim / 2}, DType::kF32),
          .positions = Tensor::empty({capacity}, DType::kI32),
          .sequence_index = Tensor::empty({capacity}, DType::kI32),
          .policies = TokenPolicies::defaults(capacity)};
}

}  // namespace

DecoderRows DecoderRows::first(int64_t count) const {
  return {.hidden = hidden.first(count),
          .normed = normed.first(count),
          .angles = angles.first(count),
          .positions = positions.first(count),
          .sequence_index = sequence_index.first(count),
          .policies = policies.first(count)};
}

MoeBufferConfig moe_buffer_config(const ModelConfig& config, const StepLimits& limits, const DispatchConfig& formats) {
  return {.max_tokens = limits.max_tokens,
          .num_experts = config.moe.num_experts,
          .top_k = config.moe.top_k,
          .formats = formats};
}

Activations::Activations(const ModelConfig& config, const StepLimits& limits)
    : tokens(make_rows(config, limits.max_tokens)), logit_rows(make_rows(config, limits.max_logit_rows)) {
  const int64_t rows = limits.max_tokens;
  const KvLayout& kv = config.attention.kv;
  q = Tensor::empty({rows, config.attention.num_heads, kv.key_dim}, DType::kF32);
  k = Tensor::empty({rows, kv.kv_heads, kv.key_dim}, DType::kF32);
  v = Tensor::empty({rows, kv.kv_heads, kv.value_dim}, DType::kF32);
  attended = Tensor::empty({rows, config.attention.num_heads, kv.value_dim}, DType::kF32);
  keeps_all = Tensor::zeros({rows}, DType::kU8);
  sublayer_output = Tensor::empty({rows, config.hidden_size}, DType::kF32);
  const int64_t dense_rows = config.num_moe_layers() < config.num_layers() ? rows : 0;
  activated = Tensor::empty({dense_rows, config.dense_intermediate_size}, DType::kF32);
  row_index = Tensor::empty({dense_rows}, DType::kI32);
  std::iota(row_index.span<int32_t>().begin(), row_index.span<int32_t>().end(), 0);
  row_offsets = Tensor::zeros({2}, DType::kI32);
  logits = Tensor::empty({limits.max_logit_rows, config.vocab_size}, DType::kF32);
}

Tensor Activations::offsets_of_one_expert(int64_t num_rows) {
  row_offsets.data<int32_t>()[1] = static_cast<int32_t>(num_rows);
  return row_offsets;
}

}  // namespace skipper
