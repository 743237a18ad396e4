#include "bench/written_out_decoder.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "expert_parallel/dispatch_config.h"
#include "kernels/cuda/decoder_rows.h"
#include "kernels/cuda/expert_rows.h"
#include "kernels/cuda/expert_sums.h"
#include "kernels/cuda/matrix_products.h"
#include "kernels/cuda/routing.h"
#include "model/rotary_embedding.h"

namespace skipper::cuda {
namespace {

DeviceMoeBufferConfig moe_buffer_config(const ModelConfig& model, const StepLimits& limits) {
  return {.max_tokens = limits.max_tokens,
          .hidden_size = model.hidden_size,
          .num_experts = model.moe.num_experts,
          .top_k = model.moe.top_k,
          .intermediate_size = model.moe.intermediate_size,
          .max_local_experts = static_cast<int>(model.moe.num_experts),
          .combine_dtype = DispatchConfig{}.combine_dtype};
}

StepShape largest_shape(const StepLimits& limits) {
  return {.num_rows = limits.max_tokens,
          .num_logit_rows = limits.max_logit_rows,
          .num_sequences = limits.max_sequences,
          .num_blocks = (limits.max_positions + kKvPanelPositions - 1) / kKvPanelPositions};
}

// Rows of an expert if tokens chose evenly, as the MoE layer expects them.
int64_t expected_rows(int64_t num_tokens, const MoeConfig& moe) {
  return std::max<int64_t>(1, (num_tokens * moe.top_k + moe.num_experts - 1) / moe.num_experts);
}

// The first `count` rows of x [T, heads, D] as [count, heads · D].
Tensor as_matrix(const Tensor& x, int64_t count) { return x.first(count).reshaped({count, x.dim(1) * x.dim(2)}); }

}  // namespace

WrittenOutDecoder::WrittenOutDecoder(const ModelConfig& model, const DecoderWeights& weights, const StepLimits& limits,
                                     Stream& stream)
    : model_(model),
      weights_(weights),
      skip_table_({model.num_moe_layers(), model.moe.num_experts}, stream.device()),
      tallies_(model.num_moe_layers(), stream.device()),
      moe_(moe_buffer_config(model, limits), stream.device()),
      scratch_(limits.max_sequences, limits.max_positions, model.attention.num_heads, model.attention.kv.key_dim,
               stream.device()),
      inputs_(std::vector<StepShape>{largest_shape(limits)}, stream.device()) {
  const int64_t heads = model.attention.num_heads, head_dim = model.attention.kv.key_dim;
  const int64_t rows = limits.max_tokens, wanted = limits.max_logit_rows;
  const auto empty = [&](const Shape& shape, DType dtype) { return Tensor::empty(shape, dtype, stream.device()); };
  hidden_ = empty({rows, model.hidden_size}, DType::kF32);
  normed_f32_ = empty(hidden_.shape(), DType::kF32);
  normed_ = empty(hidden_.shape(), DType::kBF16);
  delta_ = empty(hidden_.shape(), DType::kF32);
  cos_sin_ = empty({rows, head_dim}, DType::kF32);
  qkv_ = empty({rows, (heads + 2 * model.attention.kv.kv_heads) * head_dim}, DType::kF32);
  q_ = empty({rows, heads, head_dim}, DType::kBF16);
  attended_ = empty(q_.shape(), DType::kBF16);
  wanted_hidden_ = empty({wanted, model.hidden_size}, DType::kF32);
  wanted_attended_ = empty({wanted, heads, head_dim}, DType::kBF16);
  logits_ = empty({wanted, model.vocab_size}, DType::kF32);
  rank_of_expert_ = Tensor::zeros({model.moe.num_experts}, DType::kI32, stream.device());
  hop_of_rank_ = Tensor::zeros({1}, DType::kI32, stream.device());

  Tensor axis = Tensor::empty({head_dim / 2}, DType::kI32), frequency = Tensor::empty({head_dim / 2}, DType::kF32);
  const RotaryEmbedding rotary(model.rotary);
  for (size_t i = 0; i < rotary.frequencies().size(); ++i) {
    axis.data<int32_t>()[i] = rotary.frequencies()[i].axis;
    frequency.data<float>()[i] = rotary.frequencies()[i].inverse;
  }
  rotary_axis_ = upload(axis, stream);
  rotary_frequency_ = upload(frequency, stream);
}

Tensor WrittenOutDecoder::step(const BatchInput& batch, const LevelTable& levels, KvCache& cache, Stream& stream,
                               const StepObserver& observer) {
  skip_table_.upload(levels, stream);
  const StepShape shape = shape_of(batch, cache.block_size());
  const StepTensors inputs = inputs_.upload(batch, shape, stream);
  const Step step{shape, inputs, cache, stream, observer};
  embed(step);
  Rows tokens = token_rows(step);
  rms_norm(tokens.hidden, norm(weights_.layers.front().input_norm), tokens.normed, stream);
  end_part(step, StepPart::kSumsAndNorms);
  const int64_t last = model_.num_layers() - 1;
  for (int64_t layer = 0; layer < last; ++layer) {
    attend(step, layer, tokens);
    feed_forward(step, layer, tokens);
  }
  attend(step, last, tokens);
  Rows wanted = wanted_rows(step, tokens);
  feed_forward(step, last, wanted);
  Tensor logits = logits_.first(shape.num_logit_rows);
  linear(wanted.normed.bf16, weights_.head, logits, stream);
  end_part(step, StepPart::kDense);
  return logits;
}

void WrittenOutDecoder::end_part(const Step& step, StepPart part) {
  if (step.observer.on_part) step.observer.on_part(part);
}

void WrittenOutDecoder::embed(const Step& step) {
  Tensor hidden = hidden_.first(step.shape.num_rows), cos_sin = cos_sin_.first(step.shape.num_rows);
  embed_tokens(step.inputs.token_ids, weights_.embedding, hidden, step.stream);
  rotary_cos_sin(step.inputs.rotary, {rotary_axis_, rotary_frequency_}, cos_sin, step.stream);
}

WrittenOutDecoder::Rows WrittenOutDecoder::token_rows(const Step& step) {
  const int64_t count = step.shape.num_rows;
  return {hidden_.first(count), as_matrix(attended_, count), {normed_f32_.first(count), normed_.first(count)},
          delta_.first(count), step.inputs.rows};
}

WrittenOutDecoder::Rows WrittenOutDecoder::wanted_rows(const Step& step, const Rows& tokens) {
  const int64_t count = step.shape.num_logit_rows;
  Rows rows{wanted_hidden_.first(count), as_matrix(wanted_attended_, count),
            {tokens.normed.f32.first(count), tokens.normed.bf16.first(count)}, tokens.delta.first(count),
            step.inputs.logit_rows};
  gather_rows(tokens.hidden, step.inputs.logit_index, rows.hidden, step.stream);
  gather_rows(tokens.attended, step.inputs.logit_index, rows.attended, step.stream);
  end_part(step, StepPart::kSumsAndNorms);
  return rows;
}

void WrittenOutDecoder::attend(const Step& step, int64_t layer, const Rows& rows) {
  const DeviceLayerWeights& weights = weights_.layers[static_cast<size_t>(layer)];
  PagedKv& kv = step.cache.layer(layer);
  const int64_t count = step.shape.num_rows;
  Tensor qkv = qkv_.first(count), q = q_.first(count), attended = attended_.first(count);
  const Tensor cos_sin = cos_sin_.first(count);
  linear(rows.normed.bf16, weights.qkv.weight, qkv, step.stream);
  end_part(step, StepPart::kDense);
  split_heads({qkv, weights.qkv.bias, weights.q_norm, weights.k_norm, model_.rms_norm_epsilon, cos_sin, step.inputs.slots},
              {q, kv.k, kv.v}, step.stream);
  paged_attention({.q = q,
                   .k_cache = kv.k,
                   .v_cache = kv.v,
                   .query_offsets = step.inputs.query_offsets,
                   .first_position = step.inputs.first_position,
                   .block_tables = step.inputs.block_tables,
                   .block_size = step.cache.block_size(),
                   .scale = 1.0f / std::sqrt(static_cast<float>(model_.attention.kv.key_dim)),
                   .max_queries = step.shape.max_queries,
                   .max_positions = step.shape.max_positions},
                  scratch_, attended, step.stream);
  end_part(step, StepPart::kAttention);
}

void WrittenOutDecoder::feed_forward(const Step& step, int64_t layer, Rows& rows) {
  const DeviceLayerWeights& weights = weights_.layers[static_cast<size_t>(layer)];
  linear(rows.attended, weights.o.weight, rows.delta, step.stream);
  end_part(step, StepPart::kDense);
  add_rms_norm(rows.delta, norm(weights.post_attention_norm), rows.hidden, rows.normed, step.stream);
  end_part(step, StepPart::kSumsAndNorms);
  route(step, layer, rows);
  run_experts(step, layer, rows);
}

void WrittenOutDecoder::route(const Step& step, int64_t layer, const Rows& rows) {
  const int64_t count = rows.hidden.dim(0);
  const auto moe_layer = static_cast<int>(layer);
  Tensor logits = moe_.logits.first(count);
  router_logits(rows.normed.f32, weights_.layers[static_cast<size_t>(layer)].router, logits, step.stream);
  const Tensor skip_rows = skip_table_.skip_rows(moe_layer), expert_scale = skip_table_.expert_scale(moe_layer);
  Tensor expert_ids = moe_.expert_ids.first(count), routed_ids = moe_.routed_ids.first(count);
  Tensor expert_weights = moe_.expert_weights.first(count);
  Tensor usage = step.inputs.usage, pair_counts = tallies_.pair_counts(moe_layer);
  route_tokens({.logits = logits,
                .token_class = rows.policies.token_class,
                .level = rows.policies.level,
                .phase = rows.policies.phase,
                .step_token = rows.policies.step_token,
                .skip_rows = skip_rows,
                .expert_scale = expert_scale,
                .rank_of_expert = rank_of_expert_,
                .hop_of_rank = hop_of_rank_,
                .normalization = model_.moe.normalization},
               {expert_ids, routed_ids, expert_weights, usage, pair_counts}, step.stream);
  if (step.observer.on_routing) step.observer.on_routing(layer, expert_ids);
}

void WrittenOutDecoder::run_experts(const Step& step, int64_t layer, Rows& rows) {
  const DeviceLayerWeights& weights = weights_.layers[static_cast<size_t>(layer)];
  const int64_t count = rows.hidden.dim(0), num_pairs = count * model_.moe.top_k;
  const Tensor expert_ids = moe_.expert_ids.first(count), expert_weights = moe_.expert_weights.first(count);
  const Tensor num_rows = moe_.row_numbers.slice(count, count + 1);
  Tensor row_offsets = moe_.row_offsets, row_index = moe_.row_index.first(num_pairs);
  Tensor row_of_pair = moe_.row_of_pair.first(count), sorted = moe_.sorted_rows.first(num_pairs);
  Tensor activated = moe_.activated.first(num_pairs), output = moe_.expert_output.first(num_pairs);
  const ArrivedRows arrived{rows.normed.bf16, expert_ids, num_rows, count};
  sort_and_gather(arrived, {row_offsets, row_index, row_of_pair}, sorted, step.stream);
  end_part(step, StepPart::kRouting);
  const int64_t expected = expected_rows(count, model_.moe);
  expert_gate_up({sorted, row_offsets, expected}, weights.gate_up, activated, step.stream);
  expert_down({activated, row_offsets, expected}, weights.down, output, step.stream);
  end_part(step, StepPart::kExperts);
  NormedRows normed{{}, rows.normed.bf16};
  const PairTerms terms{arrived, row_of_pair, expert_weights, output, moe_.config.combine_dtype};
  add_pair_sums_rms_norm(terms, norm_after(layer), rows.hidden, normed, step.stream);
  end_part(step, StepPart::kSumsAndNorms);
}

NormWeights WrittenOutDecoder::norm_after(int64_t layer) const {
  const bool is_last = layer + 1 == model_.num_layers();
  return norm(is_last ? weights_.final_norm : weights_.layers[static_cast<size_t>(layer) + 1].input_norm);
}

}  // namespace skipper::cuda
