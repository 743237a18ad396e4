#include "model/cuda/decoder.h"

#include <glog/logging.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>
#include <string>

#include "base/error.h"
#include "kernels/cuda/matrix_products.h"
#include "kernels/cuda/token_sampling.h"
#include "kernels/cuda/vision_rows.h"
#include "model/rotary_embedding.h"

namespace skipper::cuda {
namespace {

// Of the steps of bounds of positions; a shorter bound would save nothing.
constexpr int64_t kLeastPositions = kSplitPositions;

int64_t padded_positions(int64_t num_positions) {
  return std::max(kLeastPositions, static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(num_positions))));
}

// A sequence of a decode step has one row, whose logits are read.
int64_t most_decode_rows(const StepLimits& limits) {
  return padded_rows(std::min({limits.max_tokens, limits.max_logit_rows, limits.max_sequences}));
}

int64_t most_rows(const StepLimits& limits) { return std::max(limits.max_tokens, most_decode_rows(limits)); }
int64_t most_sequences(const StepLimits& limits) { return padded_rows(std::min(limits.max_tokens, limits.max_sequences)); }
int64_t most_logit_rows(const StepLimits& limits) { return std::max(limits.max_logit_rows, most_decode_rows(limits)); }

void require_shape(bool is_possible, const std::string& what) {
  if (!is_possible) throw InvalidRequest("model: " + what + "; serve it with --device cpu", "model");
}

void check_model(const ModelConfig& model) {
  const AttentionConfig& attention = model.attention;
  const int64_t head_dim = attention.kv.key_dim;
  require_shape(head_dim == 16 || head_dim == 32 || head_dim == 64 || head_dim == 128,
                "heads of " + std::to_string(head_dim) + " elements do not run on a GPU, which takes 16, 32, 64 or 128");
  require_shape(attention.kv.value_dim == head_dim && model.rotary.dim == head_dim,
                "heads whose values or rotated parts are not as wide as their keys do not run on a GPU");
  require_shape(attention.num_heads % attention.kv.kv_heads == 0 && attention.num_heads / attention.kv.kv_heads <= 16,
                std::to_string(attention.num_heads) + " heads on " + std::to_string(attention.kv.kv_heads) +
                    " heads of keys do not run on a GPU, which takes up to 16 on one");
  require_shape(model.hidden_size % 8 == 0 && model.moe.intermediate_size % 8 == 0,
                "rows of " + std::to_string(model.hidden_size) + " and " + std::to_string(model.moe.intermediate_size) +
                    " elements do not run on a GPU, which takes multiples of 8");
  require_shape(model.moe.top_k <= 16 && model.moe.num_experts <= 1024,
                "more than 16 of 1024 experts do not run on a GPU");
  require_shape(model.vocab_size <= kMostSampledLogits,
                "a vocabulary of " + std::to_string(model.vocab_size) + " does not run on a GPU, which takes up to " +
                    std::to_string(kMostSampledLogits));
}

int own_rank(const DecoderContext& context) { return context.data == nullptr ? 0 : context.data->rank(); }

DeviceMoeBufferConfig moe_buffer_config(const ModelConfig& model, const DecoderConfig& config, const DecoderContext& context) {
  int max_local_experts = 0;
  for (int layer = 0; layer < model.num_moe_layers(); ++layer) {
    const auto count = static_cast<int>(context.placement.experts_of(own_rank(context), layer).size());
    max_local_experts = std::max(max_local_experts, count);
  }
  return {.max_tokens = most_rows(config.limits),
          .hidden_size = model.hidden_size,
          .num_experts = model.moe.num_experts,
          .top_k = model.moe.top_k,
          .intermediate_size = model.moe.intermediate_size,
          .max_local_experts = max_local_experts,
          .world_size = context.placement.world_size(),
          .payload_format = config.formats.payload_format,
          .combine_dtype = config.formats.combine_dtype};
}

// Every tensor of a step is largest in one of these.
std::vector<StepShape> largest_shapes(const StepLimits& limits, int64_t least_block_size) {
  const auto blocks_of = [&](int64_t positions) { return (positions + least_block_size - 1) / least_block_size; };
  const int64_t decode_rows = most_decode_rows(limits);
  return {{.num_rows = limits.max_tokens,
           .num_logit_rows = limits.max_logit_rows,
           .num_sequences = std::min(limits.max_tokens, limits.max_sequences),
           .num_blocks = blocks_of(limits.max_positions)},
          {.num_rows = decode_rows,
           .num_logit_rows = decode_rows,
           .num_sequences = decode_rows,
           .num_blocks = blocks_of(padded_positions(limits.max_positions))}};
}

DeviceMoeConfig moe_config(const ModelConfig& model, int layer, int moe_layer) {
  return {.layer = layer,
          .moe_layer = moe_layer,
          .hidden_size = model.hidden_size,
          .num_experts = model.moe.num_experts,
          .top_k = model.moe.top_k,
          .intermediate_size = model.moe.intermediate_size,
          .normalization = model.moe.normalization};
}

// The first `count` rows of x as [count, width].
Tensor as_matrix(const Tensor& x, int64_t count) {
  const Tensor rows = x.first(count);
  return rows.reshaped({count, x.shape()[1] * x.shape()[2]});
}

ForwardShape own_shape(const BatchInput& batch, const StepShape& shape) {
  const bool has_only_decodes = shape.max_queries == 1 && shape.num_logit_rows == shape.num_rows && batch.vision_spans.empty();
  return {.most_rows = static_cast<int32_t>(shape.num_rows),
          .most_logit_rows = static_cast<int32_t>(shape.num_logit_rows),
          .is_decode = has_only_decodes};
}

// A rank outside of what all were told would make other exchanges than they do.
void check_within(const ForwardShape& own, const ForwardShape& all) {
  CHECK_LE(own.most_rows, all.most_rows);
  CHECK_LE(own.most_logit_rows, all.most_logit_rows);
  CHECK(own.is_decode || !all.is_decode);
}

void copy(const Tensor& from, Tensor to, Stream& stream) {
  copy_bytes({from.bytes(), from.device(), to.bytes(), to.device(), from.num_bytes()}, stream);
}

}  // namespace

int64_t padded_rows(int64_t num_rows) {
  for (const int64_t rows : {1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192}) {
    if (num_rows <= rows) return rows;
  }
  constexpr int64_t kLargeStep = 128;
  return (num_rows + kLargeStep - 1) / kLargeStep * kLargeStep;
}

// Working memory on the GPU for the largest step: T rows, of which L go through the end of the last layer.
struct Decoder::Buffers {
  Buffers(const ModelConfig& model, const StepLimits& limits, Stream& stream);

  Tensor hidden;      // [T, H] f32
  Tensor normed_f32;  // [T, H] f32
  Tensor normed;      // [T, H] bf16
  Tensor cos_sin;     // [T, D] f32
  Tensor qkv;         // [T, (heads + 2 · kv_heads) · D] f32
  Tensor q;           // [T, heads, D] bf16
  Tensor attended;    // [T, heads, D] bf16
  Tensor delta;       // [T, H] f32
  Tensor activated;   // [T, I] bf16, of dense layers
  Tensor wanted_hidden;    // [L, H] f32
  Tensor wanted_attended;  // [L, heads, D] bf16
  Tensor logits;           // [L, V] f32
  Tensor tokens;           // [L] i32
  Tensor rotary_axis;       // [D / 2] i32
  Tensor rotary_frequency;  // [D / 2] f32
  Tensor row_numbers;       // [T] i32: 0, 1, ...
};

Decoder::Buffers::Buffers(const ModelConfig& model, const StepLimits& limits, Stream& stream) {
  const int64_t num_rows = most_rows(limits), num_logit_rows = most_logit_rows(limits);
  const int64_t heads = model.attention.num_heads, head_dim = model.attention.kv.key_dim;
  const auto empty = [&](const Shape& shape, DType dtype) { return Tensor::empty(shape, dtype, stream.device()); };
  hidden = empty({num_rows, model.hidden_size}, DType::kF32);
  normed_f32 = empty(hidden.shape(), DType::kF32);
  normed = empty(hidden.shape(), DType::kBF16);
  cos_sin = empty({num_rows, head_dim}, DType::kF32);
  qkv = empty({num_rows, (heads + 2 * model.attention.kv.kv_heads) * head_dim}, DType::kF32);
  q = empty({num_rows, heads, head_dim}, DType::kBF16);
  attended = empty(q.shape(), DType::kBF16);
  delta = empty(hidden.shape(), DType::kF32);
  const bool has_dense_layers = model.num_moe_layers() < model.num_layers();
  activated = empty({has_dense_layers ? num_rows : 0, model.dense_intermediate_size}, DType::kBF16);
  wanted_hidden = empty({num_logit_rows, model.hidden_size}, DType::kF32);
  wanted_attended = empty({num_logit_rows, heads, head_dim}, DType::kBF16);
  logits = empty({num_logit_rows, model.vocab_size}, DType::kF32);
  tokens = empty({num_logit_rows}, DType::kI32);

  Tensor axis = Tensor::empty({head_dim / 2}, DType::kI32), frequency = Tensor::empty({head_dim / 2}, DType::kF32);
  const RotaryEmbedding rotary(model.rotary);
  for (size_t i = 0; i < rotary.frequencies().size(); ++i) {
    axis.data<int32_t>()[i] = rotary.frequencies()[i].axis;
    frequency.data<float>()[i] = rotary.frequencies()[i].inverse;
  }
  rotary_axis = upload(axis, stream);
  rotary_frequency = upload(frequency, stream);
  Tensor numbers = Tensor::empty({num_rows}, DType::kI32);
  std::iota(numbers.data<int32_t>(), numbers.data<int32_t>() + num_rows, 0);
  row_numbers = upload(numbers, stream);
}

Decoder::Decoder(const ModelConfig& model, DecoderWeights weights, const DecoderConfig& config, const DecoderContext& context,
                 Stream& stream)
    : model_((check_model(model), model)),
      weights_(std::move(weights)),
      config_(config),
      context_(context),
      skip_table_({model.num_moe_layers(), model.moe.num_experts}, stream.device()),
      tallies_(model.num_moe_layers(), stream.device(), model.moe.num_experts),
      moe_buffers_(moe_buffer_config(model, config, context), stream.device()),
      attention_scratch_(most_sequences(config.limits), padded_positions(config.limits.max_positions),
                         model.attention.num_heads, model.attention.kv.key_dim, stream.device()),
      inputs_(largest_shapes(config.limits, kKvPanelPositions), stream.device()),
      buffers_(std::make_unique<Buffers>(model, config.limits, stream)),
      host_usage_({most_rows(config.limits), kNumGpuUsageColumns}, DType::kI32),
      host_tokens_({most_logit_rows(config.limits)}, DType::kI32),
      row_bytes_{row_bytes(config.formats.payload_format, model.hidden_size),
                 model.hidden_size * static_cast<int64_t>(size_of(config.formats.combine_dtype))},
      host_demand_({context.placement.world_size(), 2}, DType::kI32) {
  CHECK_EQ(weights_.layers.size(), static_cast<size_t>(model.num_layers()));
  if (context.data != nullptr) dispatcher_.emplace(*context.data, context.topology);
  const bool wants_relay = dispatcher_ && config.node_relay == NodeRelayUse::kPrompts;
  if (wants_relay && dispatcher_->prepare_relay(moe_buffers_.dispatch.shape)) prompt_mode_ = DispatchMode::kExactCountsByNode;
  const size_t staged_bytes = config.staging == StagingUse::kPrompts ? weights_.most_host_expert_bytes() : 0;
  if (staged_bytes > 0) staging_.emplace(staged_bytes, stream.device());
  if (weights_.has_host_experts()) {
    const HostExpertShape shape{model.hidden_size, model.moe.intermediate_size, moe_buffers_.sorted_rows.dim(0)};
    host_experts_.emplace(shape, context.workers, stream);
  }
  const DeviceMoeContext moe{context.placement, context.topology, skip_table_, tallies_,
                             dispatcher_ ? &*dispatcher_ : nullptr, staging_ ? &*staging_ : nullptr,
                             host_experts_ ? &*host_experts_ : nullptr, &expert_timer_};
  int moe_layer = 0;
  for (int layer = 0; layer < static_cast<int>(model.num_layers()); ++layer) {
    const DeviceLayerWeights& layer_weights = weights_.layers[static_cast<size_t>(layer)];
    std::optional<DeviceMoeLayer>& slot = moe_layers_.emplace_back();
    if (!model.is_moe_layer(layer)) continue;
    slot.emplace(moe_config(model, layer, moe_layer++),
                 DeviceMoeWeights{layer_weights.router, layer_weights.gate_up, layer_weights.down, layer_weights.host_experts},
                 moe);
  }
}

Decoder::~Decoder() = default;

Tensor Decoder::device_logits() const { return buffers_->logits.first(num_logit_rows_); }

void Decoder::set_step(int64_t step) {
  if (dispatcher_) dispatcher_->set_step(step);
}

void Decoder::set_routing_observer(const RoutingObserver& observer) {
  routing_observer_ = observer;
  moe_buffers_.keeps_routed_weights = observer != nullptr;
  if (observer && !routing_recorder_) routing_recorder_.emplace(model_.num_moe_layers(), moe_buffers_);
}

StepOutput Decoder::forward(const BatchInput& batch, KvCache& cache, Stream& stream) {
  skip_table_.upload(context_.levels, stream);
  Agreement agreement = agree(batch, cache.block_size(), stream);
  num_logit_rows_ = batch.logit_rows.num_elements();
  if (agreement.may_lose_rows()) tallies_.keep_expert_loads(stream);
  run(agreement, batch, cache, stream);
  StepOutput output = fetch(batch.logit_use, stream);
  if (has_lost_rows(agreement)) {
    discard_run(stream);
    agreement.set_capacity(agreement.full_capacity);
    run(agreement, batch, cache, stream);
    output = fetch(batch.logit_use, stream);
    CHECK(!has_lost_rows(agreement));
  }
  tallies_.add_news(row_bytes_, context_.pairs, context_.traffic);
  if (routing_observer_) routing_recorder_->show(routing_observer_, batch, host_usage_.tensor());
  return output;
}

void Decoder::run(const Agreement& agreement, const BatchInput& batch, KvCache& cache, Stream& stream) {
  if (agreement.is_idle) return;
  const StepTensors inputs = inputs_.upload(batch, agreement.shape, stream);
  const Step step{agreement, inputs, batch.vision_spans, cache, stream};
  const int num_steps_like_it = choose_timing(agreement);
  expert_timer_.begin_step(num_steps_like_it);
  const bool is_watched = routing_observer_ || num_steps_like_it > 0;
  // A graph could not wait for the host's experts. Other ranks may run theirs: what all exchange is the same.
  const bool can_be_graph = agreement.is_decode && !is_watched && !host_experts_;
  if (can_be_graph && config_.graphs == GraphUse::kDecodeSteps) {
    run_graph(step);
  } else {
    queue_step(step);
  }
}

// Every rank knows what all ranks' rows asked for, so all decide alike without asking again.
bool Decoder::has_lost_rows(const Agreement& agreement) {
  demand_.most_rows = 0;
  if (!dispatcher_ || agreement.is_idle || !agreement.is_decode) return false;
  bool has_overflown = false;
  for (int rank = 0; rank < dispatcher_->world_size(); ++rank) {
    const auto* demand = reinterpret_cast<const SlotDemand*>(host_demand_.tensor().row<int32_t>(rank));
    has_overflown = has_overflown || demand->has_overflown != 0;
    demand_.most_rows = std::max<int64_t>(demand_.most_rows, demand->most_rows);
  }
  return has_overflown;
}

// A lost row spoils what follows it on any rank. The next run writes anew all that is left of it: K and V of the same positions,
// usage, tokens and logits.
void Decoder::discard_run(Stream& stream) {
  tallies_.discard_news(context_.traffic);
  tallies_.restore_expert_loads(stream);
  if (routing_recorder_) routing_recorder_->forget();
  ++demand_.num_reruns;
}

void Decoder::check_batch(const BatchInput& batch, const StepShape& shape) const {
  CHECK_LE(shape.num_rows, config_.limits.max_tokens);
  CHECK_LE(shape.num_logit_rows, config_.limits.max_logit_rows);
  CHECK_LE(shape.num_sequences, config_.limits.max_sequences);
  CHECK_LE(shape.max_positions, config_.limits.max_positions);
  CHECK(batch.rotary_positions.shape() == Shape({shape.num_rows, 3})) << batch.rotary_positions.shape().to_string();
}

// Ranks whose steps differ must still make the same exchanges.
Decoder::Agreement Decoder::agree(const BatchInput& batch, int64_t block_size, Stream& stream) {
  const StepShape shape = shape_of(batch, block_size);
  check_batch(batch, shape);
  const ForwardShape own = own_shape(batch, shape);
  const ForwardShape all = batch.shape_of_all ? *batch.shape_of_all : ask_others(own, stream);
  check_within(own, all);
  Agreement result{.is_decode = all.is_decode, .is_idle = all.most_rows == 0, .shape = shape, .full_capacity = all.most_rows};
  result.tokens.capacity = all.most_rows;
  result.logit_rows.capacity = all.most_logit_rows;
  if (!all.is_decode) {
    // Prompts are worth a wait: sending exactly the rows saves more.
    result.tokens.mode = result.logit_rows.mode = prompt_mode_;
    return result;
  }
  int64_t capacity = all.slot_rows > 0 && dispatcher_ ? all.slot_rows : all.most_rows;
  if (config_.graphs == GraphUse::kDecodeSteps) {
    const int64_t rows = padded_rows(all.most_rows), positions = padded_positions(shape.max_positions);
    result.shape = {rows, rows, rows, (positions + block_size - 1) / block_size, 1, positions};
    result.full_capacity = rows;
    capacity = padded_rows(capacity);
  }
  result.set_capacity(std::min(capacity, result.full_capacity));
  return result;
}

// A timed decode step takes about half as long again, since it runs without its graph; a timed prompt a few hundredths more.
int Decoder::choose_timing(const Agreement& agreement) {
  constexpr int kDecodeStepsApart = 256, kOtherStepsApart = 8;
  int64_t& num_steps = agreement.is_decode ? num_decode_steps_ : num_other_steps_;
  const int apart = agreement.is_decode ? kDecodeStepsApart : kOtherStepsApart;
  return num_steps++ % apart == apart / 2 ? apart : 0;
}

ForwardShape Decoder::ask_others(const ForwardShape& own, Stream& stream) const {
  if (context_.agreement == nullptr) return own;
  std::vector<ForwardShape> ranks(static_cast<size_t>(context_.agreement->size()));
  context_.agreement->all_gather({reinterpret_cast<const std::byte*>(&own), sizeof(own)},
                                 {reinterpret_cast<std::byte*>(ranks.data()), ranks.size() * sizeof(ForwardShape)}, stream);
  ForwardShape all{.is_decode = true};
  for (const ForwardShape& rank : ranks) {
    all.most_rows = std::max(all.most_rows, rank.most_rows);
    all.most_logit_rows = std::max(all.most_logit_rows, rank.most_logit_rows);
    all.is_decode = all.is_decode && rank.is_decode;
  }
  return all;
}

// A shape runs once on its own, so that all its kernels are loaded when they are recorded.
void Decoder::run_graph(const Step& step) {
  forget_graphs_of_other_caches(step.cache);
  const StepShape& shape = step.agreement.shape;
  const auto [found, is_new] = graphs_.try_emplace({shape.num_rows, shape.max_positions, step.agreement.tokens.capacity});
  if (is_new) return queue_step(step);
  if (!found->second) found->second.emplace(step.stream, [&] { queue_step(step); });
  found->second->launch(step.stream);
}

void Decoder::forget_graphs_of_other_caches(KvCache& cache) {
  std::vector<const std::byte*> memory;
  for (int64_t layer = 0; layer < model_.num_layers(); ++layer) memory.push_back(cache.layer(layer).k.bytes());
  if (memory == recorded_cache_) return;
  graphs_.clear();
  recorded_cache_ = std::move(memory);
}

// Whether nearly every expert has a row among these of each rank: with four expected, 98 of 100 have.
bool Decoder::meets_all_experts(int64_t num_rows) const {
  constexpr int64_t kLeastRowsPerExpert = 4;
  return num_rows * moe_buffers_.config.world_size * model_.moe.top_k >= kLeastRowsPerExpert * model_.moe.num_experts;
}

// In decode steps few rows meet few experts, and the last layer of a prompt computes few of its rows.
void Decoder::begin_staging(const Agreement& agreement) {
  if (!staging_) return;
  int num_staged = agreement.is_decode || !meets_all_experts(agreement.tokens.capacity) ? 0 : staging_->num_layers();
  const bool is_last_staged = weights_.layers.back().host_expert_bytes() > 0;
  if (num_staged > 0 && is_last_staged && !meets_all_experts(agreement.logit_rows.capacity)) --num_staged;
  staging_->begin_step(num_staged);
}

void Decoder::queue_step(const Step& step) {
  begin_staging(step.agreement);
  if (dispatcher_) moe_buffers_.dispatch.clear_demand(step.stream);
  embed(step);
  LayerRows tokens = token_rows(step);
  rms_norm(tokens.hidden, norm(weights_.layers.front().input_norm), tokens.normed, step.stream);
  const int64_t last = model_.num_layers() - 1;
  for (int64_t layer = 0; layer < last; ++layer) {
    attend(step, layer, tokens);
    feed_forward(step, layer, tokens);
    splice_deepstack(step, layer, tokens);
  }
  // Later tokens read every token's K and V of the last layer, but its output only matters where logits are read.
  attend(step, last, tokens);
  LayerRows wanted = wanted_rows(step, tokens);
  feed_forward(step, last, wanted);
  queue_logits(step, wanted);
  queue_copies(step);
}

// Token embeddings, with image features in the placeholders' stead, and the angles of all layers.
void Decoder::embed(const Step& step) {
  Tensor hidden = buffers_->hidden.first(step.agreement.shape.num_rows);
  embed_tokens(step.inputs.token_ids, weights_.embedding, hidden, step.stream);
  for (const VisionSpan& span : step.images) splice(step, span.features->embeddings, span, SpliceKind::kReplace);
  Tensor cos_sin = buffers_->cos_sin.first(step.agreement.shape.num_rows);
  rotary_cos_sin(step.inputs.rotary, {buffers_->rotary_axis, buffers_->rotary_frequency}, cos_sin, step.stream);
}

// Rows of a span take their features, which may lie on the host.
void Decoder::splice(const Step& step, const Tensor& features, const VisionSpan& span, SpliceKind kind) {
  const Tensor wanted = features.slice(span.first_feature, span.first_feature + span.num_tokens);
  const Tensor on_gpu = wanted.on_gpu() ? wanted : upload(wanted, step.stream);
  Tensor placeholders = buffers_->hidden.slice(span.first_token, span.first_token + span.num_tokens);
  splice_rows(on_gpu, buffers_->row_numbers.first(span.num_tokens), kind, placeholders, step.stream);
  if (!wanted.on_gpu()) step.stream.synchronize();  // before the copy goes
}

Decoder::LayerRows Decoder::token_rows(const Step& step) {
  const int64_t count = step.agreement.shape.num_rows;
  return {.hidden = buffers_->hidden.first(count),
          .attended = as_matrix(buffers_->attended, count),
          .normed = {buffers_->normed_f32.first(count), buffers_->normed.first(count)},
          .delta = buffers_->delta.first(count),
          .policies = step.inputs.rows,
          .dispatch = step.agreement.tokens};
}

Decoder::LayerRows Decoder::wanted_rows(const Step& step, const LayerRows& tokens) {
  const int64_t count = step.agreement.shape.num_logit_rows;
  LayerRows rows{.hidden = buffers_->wanted_hidden.first(count),
                 .attended = as_matrix(buffers_->wanted_attended, count),
                 .normed = {tokens.normed.f32.first(count), tokens.normed.bf16.first(count)},
                 .delta = tokens.delta.first(count),
                 .policies = step.inputs.logit_rows,
                 .dispatch = step.agreement.logit_rows};
  if (count == tokens.hidden.dim(0)) {
    rows.hidden = tokens.hidden;
    rows.attended = tokens.attended;
    return rows;
  }
  gather_rows(tokens.hidden, step.inputs.logit_index, rows.hidden, step.stream);
  gather_rows(tokens.attended, step.inputs.logit_index, rows.attended, step.stream);
  return rows;
}

// K and V of rows.normed to the cache, and rows.attended.
void Decoder::attend(const Step& step, int64_t layer, const LayerRows& rows) {
  const DeviceLayerWeights& weights = weights_.layers[static_cast<size_t>(layer)];
  const StepShape& shape = step.agreement.shape;
  PagedKv& kv = step.cache.layer(layer);
  Tensor qkv = buffers_->qkv.first(shape.num_rows), q = buffers_->q.first(shape.num_rows);
  const Tensor cos_sin = buffers_->cos_sin.first(shape.num_rows);
  linear(rows.normed.bf16, weights.qkv.weight, qkv, step.stream);
  split_heads({qkv, weights.qkv.bias, weights.q_norm, weights.k_norm, model_.rms_norm_epsilon, cos_sin, step.inputs.slots},
              {q, kv.k, kv.v}, step.stream);
  Tensor attended = buffers_->attended.first(shape.num_rows);
  paged_attention({.q = q,
                   .k_cache = kv.k,
                   .v_cache = kv.v,
                   .query_offsets = step.inputs.query_offsets,
                   .first_position = step.inputs.first_position,
                   .block_tables = step.inputs.block_tables,
                   .block_size = step.cache.block_size(),
                   .scale = 1.0f / std::sqrt(static_cast<float>(model_.attention.kv.key_dim)),
                   .max_queries = shape.max_queries,
                   .max_positions = shape.max_positions},
                  attention_scratch_, attended, step.stream);
}

// hidden += attended · oᵀ, hidden += experts(norm(hidden)), and rows.normed.bf16 as what follows the layer reads it.
void Decoder::feed_forward(const Step& step, int64_t layer, LayerRows& rows) {
  const DeviceLayerWeights& weights = weights_.layers[static_cast<size_t>(layer)];
  linear(rows.attended, weights.o.weight, rows.delta, step.stream);
  if (weights.o.bias.defined()) add_bias(weights.o.bias, rows.delta, step.stream);
  const NormWeights post_attention = norm(weights.post_attention_norm);
  const std::optional<DeviceMoeLayer>& moe = moe_layers_[static_cast<size_t>(layer)];
  if (!moe) {
    add_rms_norm(rows.delta, post_attention, rows.hidden, rows.normed, step.stream);
    return feed_forward_dense(step, layer, rows);
  }
  const RowTensors& policies = rows.policies;
  const DeviceTokens tokens{policies.token_class, policies.level, policies.phase, policies.step_token, step.inputs.usage};
  const MoeSublayer sublayer{rows.hidden, rows.delta, post_attention, norm_after(layer), rows.normed};
  moe->forward_sublayer(tokens, dispatch_of(layer, rows), sublayer, moe_buffers_, step.stream);
  if (!routing_observer_) return;
  const auto observed = layer + 1 == model_.num_layers() ? RoutingRecorder::Rows::kLogitRows : RoutingRecorder::Rows::kTokens;
  routing_recorder_->queue(moe->config(), observed, rows.hidden.dim(0), moe_buffers_, step.stream);
}

// Whether rows were lost is known when the last of them have gone out; their way back brings it along.
DispatchPlan Decoder::dispatch_of(int64_t layer, const LayerRows& rows) const {
  DispatchPlan plan = rows.dispatch;
  const auto later = std::span(moe_layers_).subspan(static_cast<size_t>(layer) + 1);
  const bool is_last = std::ranges::none_of(later, [](const auto& moe) { return moe.has_value(); });
  plan.tells_demand = plan.mode == DispatchMode::kFixedSlots && is_last;
  return plan;
}

// A dense network is one expert to which all rows go.
void Decoder::feed_forward_dense(const Step& step, int64_t layer, LayerRows& rows) {
  const DeviceLayerWeights& weights = weights_.layers[static_cast<size_t>(layer)];
  const int64_t num_rows = rows.hidden.dim(0);
  Tensor activated = buffers_->activated.first(num_rows);
  const int64_t expected_rows = std::max<int64_t>(num_rows, 1);
  expert_gate_up({rows.normed.bf16, rows.policies.offsets, expected_rows}, weights.gate_up, activated, step.stream);
  expert_down({activated, rows.policies.offsets, expected_rows}, weights.down, rows.delta, step.stream);
  NormedRows normed{{}, rows.normed.bf16};
  add_rms_norm(rows.delta, norm_after(layer), rows.hidden, normed, step.stream);
}

NormWeights Decoder::norm_after(int64_t layer) const {
  const bool is_last = layer + 1 == model_.num_layers();
  return norm(is_last ? weights_.final_norm : weights_.layers[static_cast<size_t>(layer) + 1].input_norm);
}

// DeepStack (Meng et al. 2024): features of early vision blocks join the residual stream after the first layers.
void Decoder::splice_deepstack(const Step& step, int64_t layer, LayerRows& rows) {
  bool has_features = false;
  for (const VisionSpan& span : step.images) {
    if (static_cast<size_t>(layer) >= span.features->deepstack.size()) continue;
    splice(step, span.features->deepstack[static_cast<size_t>(layer)], span, SpliceKind::kAdd);
    has_features = true;
  }
  if (!has_features) return;
  NormedRows normed{{}, rows.normed.bf16};
  rms_norm(rows.hidden, norm_after(layer), normed, step.stream);
}

void Decoder::queue_logits(const Step& step, const LayerRows& rows) {
  Tensor logits = buffers_->logits.first(rows.hidden.dim(0)), tokens = buffers_->tokens.first(rows.hidden.dim(0));
  linear(rows.normed.bf16, weights_.head, logits, step.stream);
  sample_tokens(logits, step.inputs.samplings, tokens, step.stream);
}

// What every step brings home. Logits come on demand.
void Decoder::queue_copies(const Step& step) {
  const StepShape& shape = step.agreement.shape;
  copy(buffers_->tokens.first(shape.num_logit_rows), host_tokens_.tensor(), step.stream);
  copy(step.inputs.usage, host_usage_.tensor(), step.stream);
  tallies_.queue_fetch(step.stream);
  if (dispatcher_) copy(moe_buffers_.dispatch.demand_of_ranks, host_demand_.tensor(), step.stream);
}

StepOutput Decoder::fetch(LogitUse use, Stream& stream) {
  StepOutput output;
  if (use == LogitUse::kTokens) {
    output.tokens = host_tokens_.tensor().first(num_logit_rows_);
  } else {
    output.logits = logits_on_host(num_logit_rows_);
    copy(device_logits(), output.logits, stream);
  }
  if (context_.data != nullptr) {
    context_.data->synchronize(stream);
  } else {
    stream.synchronize();
  }
  expert_time_ += expert_timer_.finish_step();
  return output;
}

Tensor Decoder::logits_on_host(int64_t num_rows) {
  if (!host_logits_.tensor().defined() || host_logits_.tensor().dim(0) < num_rows) {
    const uint64_t grown = std::bit_ceil(static_cast<uint64_t>(std::max<int64_t>(num_rows, 1)));
    host_logits_ = PinnedTensor({static_cast<int64_t>(grown), model_.vocab_size}, DType::kF32);
  }
  return host_logits_.tensor().first(num_rows);
}

}  // namespace skipper::cuda
