#include "engine/model_runner.h"

#include <glog/logging.h>

#include <algorithm>
#include <array>

#include "model/rotary_positions.h"

namespace skipper {

// What the owner rank knows of a sequence: all its tokens, and where their K and V are.
struct ModelRunner::LocalSequence {
  GenerationRequest request;
  std::vector<int32_t> tokens;    // prompt, then generated
  RotaryPositions rotary;         // of the prompt; generated tokens follow it
  std::vector<int32_t> blocks;
  ImageFeatures features;
  // Summed here, token by token: adding up sums of chunks would depend on where the chunks end.
  double prompt_nll = 0.0;
  int32_t num_scored = 0;
  ReferenceDistance distance;
  std::vector<int32_t> feature_row;  // per prompt token: its row in `features`, −1 for other tokens

  int64_t num_prompt() const { return static_cast<int64_t>(request.prompt_ids.size()); }
  // Whether the logits at `position` predict a token that is scored.
  bool is_scored(int64_t position) const {
    return request.score_prompt && position + 1 >= request.score_from && position + 1 < num_prompt();
  }
  // A known answer that is scored is what the model would have generated.
  TokenPhase phase_of(int64_t position) const {
    const bool is_answer = request.score_prompt && position >= request.answer_from;
    return position < num_prompt() && !is_answer ? TokenPhase::kPrompt : TokenPhase::kGenerated;
  }
  // How the next token is sampled.
  TokenSampling sampling() const {
    return next_token_sampling(request, static_cast<int32_t>(static_cast<int64_t>(tokens.size()) - num_prompt()));
  }
  void copy_rotary_position(int64_t position, int32_t* out) const;  // out [3]
};

void ModelRunner::LocalSequence::copy_rotary_position(int64_t position, int32_t* out) const {
  if (position < num_prompt()) {
    std::copy_n(rotary.positions.row<int32_t>(position), 3, out);
  } else {
    std::fill_n(out, 3, rotary.next_position + static_cast<int32_t>(position - num_prompt()));
  }
}

// Host memory of every BatchInput field at its largest; a step uses the first rows.
struct ModelRunner::StepBuffers {
  StepBuffers(const EngineConfig& config, int64_t max_blocks)
      : token_ids(Tensor::empty({config.max_tokens_per_step}, DType::kI32)),
        rotary_positions(Tensor::empty({config.max_tokens_per_step, 3}, DType::kI32)),
        positions(Tensor::empty({config.max_tokens_per_step}, DType::kI32)),
        sequence_index(Tensor::empty({config.max_tokens_per_step}, DType::kI32)),
        kv_slots(Tensor::empty({config.max_tokens_per_step}, DType::kI32)),
        block_tables(Tensor::zeros({config.max_sequences_per_rank, max_blocks}, DType::kI32)),
        token_class(Tensor::empty({config.max_tokens_per_step}, DType::kU8)),
        level(Tensor::empty({config.max_tokens_per_step}, DType::kU8)),
        phase(Tensor::empty({config.max_tokens_per_step}, DType::kU8)),
        logit_rows(Tensor::empty({config.max_logit_rows}, DType::kI32)) {
    samplings.reserve(static_cast<size_t>(config.max_logit_rows));
  }

  Tensor token_ids, rotary_positions, positions, sequence_index, kv_slots, block_tables, token_class, level, phase, logit_rows;
  std::vector<TokenSampling> samplings;  // of the logit rows
  int64_t num_tokens = 0;
  int64_t num_logit_rows = 0;
};

namespace {

int64_t max_blocks_per_sequence(const EngineConfig& config) {
  return (config.max_model_len + config.kv_block_size - 1) / config.kv_block_size;
}

std::vector<ImageGrid> grids_of(std::span<const ImagePatches> images) {
  std::vector<ImageGrid> grids;
  for (const ImagePatches& image : images) grids.push_back({image.grid_t, image.grid_h, image.grid_w});
  return grids;
}

// Row in the image features of every vision token, in order of appearance.
std::vector<int32_t> number_vision_tokens(std::span<const int32_t> tokens, std::span<const TokenClass> classes) {
  std::vector<int32_t> rows;
  rows.reserve(tokens.size());
  int32_t next = 0;
  for (const int32_t token : tokens) {
    rows.push_back(classes[static_cast<size_t>(token)] == TokenClass::kVision ? next++ : -1);
  }
  return rows;
}

}  // namespace

ModelRunner::ModelRunner(MultimodalModel& model, KvCache& cache, const EngineConfig& config,
                         std::vector<TokenClass> token_classes)
    : model_(model),
      cache_(cache),
      config_(config),
      token_classes_(std::move(token_classes)),
      buffers_(std::make_unique<StepBuffers>(config, max_blocks_per_sequence(config))) {}

ModelRunner::~ModelRunner() = default;

ModelRunner::LocalSequence& ModelRunner::local(uint64_t sequence_id) {
  const auto found = sequences_.find(sequence_id);
  CHECK(found != sequences_.end()) << "the plan names sequence " << sequence_id << ", which this rank does not have";
  return found->second;
}

void ModelRunner::release(std::span<const uint64_t> sequence_ids) {
  for (const uint64_t id : sequence_ids) sequences_.erase(id);
}

void ModelRunner::run(const RankPlan& plan, const ForwardShape& shape, std::span<const std::byte> admissions, Stream& stream,
                      std::vector<SequenceResult>& results) {
  release(plan.released);
  for (const uint64_t num_bytes : plan.admission_bytes) {
    CHECK_LE(num_bytes, admissions.size());
    admit(admissions.first(num_bytes), stream);
    admissions = admissions.subspan(num_bytes);
  }
  if (step_observer_) step_observer_(plan);
  BatchInput batch = build_batch(plan);
  CHECK_LE(batch.num_tokens(), shape.most_rows);
  CHECK_LE(batch.logit_rows.num_elements(), shape.most_logit_rows);
  batch.shape_of_all = shape;
  StepOutput output = model_.forward(batch, cache_, stream);
  results.clear();
  int64_t row = 0, token = 0;
  for (const SequenceStep& step : plan.sequences) {
    results.push_back({.sequence_id = step.sequence_id});
    read_logits(step, local(step.sequence_id), output, row, results.back());
    read_usage(model_.token_usage().slice(token, token + step.num_tokens), results.back());
    token += step.num_tokens;
  }
}

void ModelRunner::admit(std::span<const std::byte> encoded, Stream& stream) {
  LocalSequence sequence;
  sequence.request = decode_generation_request(encoded);
  const GenerationRequest& request = sequence.request;
  sequence.tokens = request.prompt_ids;
  sequence.tokens.insert(sequence.tokens.end(), request.generated_ids.begin(), request.generated_ids.end());
  sequence.rotary = sequence_rotary_positions(request.prompt_ids, grids_of(request.images), model_.config());
  sequence.feature_row = number_vision_tokens(request.prompt_ids, token_classes_);
  if (!request.images.empty()) {
    sequence.features = model_.encode_images(request.images, stream);
    sequence.request.images.clear();
  }
  // Also when a preempted sequence comes again and keeps its rows anew.
  if (request.reference == ReferenceUse::kKeep) references_.start(request.reference_id);
  const uint64_t id = request.id;
  CHECK(sequences_.emplace(id, std::move(sequence)).second) << "sequence " << id << " was admitted twice";
}

BatchInput ModelRunner::build_batch(const RankPlan& plan) {
  StepBuffers& buffers = *buffers_;
  buffers.num_tokens = 0;
  buffers.num_logit_rows = 0;
  buffers.samplings.clear();
  BatchInput batch;
  batch.logit_use = LogitUse::kTokens;  // until a row needs more
  int64_t sequence_index = 0;
  for (const SequenceStep& step : plan.sequences) {
    LocalSequence& sequence = local(step.sequence_id);
    sequence.blocks.insert(sequence.blocks.end(), step.new_blocks.begin(), step.new_blocks.end());
    append_tokens(step, sequence, sequence_index++, batch);
  }
  const int64_t num_tokens = buffers.num_tokens;
  batch.token_ids = buffers.token_ids.first(num_tokens);
  batch.rotary_positions = buffers.rotary_positions.first(num_tokens);
  batch.positions = buffers.positions.first(num_tokens);
  batch.sequence_index = buffers.sequence_index.first(num_tokens);
  batch.kv_slots = buffers.kv_slots.first(num_tokens);
  batch.block_tables = buffers.block_tables.first(sequence_index);
  batch.token_class = buffers.token_class.first(num_tokens);
  batch.level = buffers.level.first(num_tokens);
  batch.phase = buffers.phase.first(num_tokens);
  batch.logit_rows = buffers.logit_rows.first(buffers.num_logit_rows);
  batch.samplings = buffers.samplings;
  return batch;
}

void ModelRunner::append_tokens(const SequenceStep& step, LocalSequence& sequence, int64_t sequence_index,
                                BatchInput& batch) {
  StepBuffers& buffers = *buffers_;
  const int64_t first_token = buffers.num_tokens;
  CHECK_LE(static_cast<size_t>(step.start + step.num_tokens), sequence.tokens.size());
  for (int64_t i = 0; i < step.num_tokens; ++i) {
    const int64_t position = step.start + i;
    const int64_t t = first_token + i;
    const int32_t token = sequence.tokens[static_cast<size_t>(position)];
    const auto block = static_cast<size_t>(position / config_.kv_block_size);
    buffers.token_ids.data<int32_t>()[t] = token;
    sequence.copy_rotary_position(position, buffers.rotary_positions.row<int32_t>(t));
    buffers.positions.data<int32_t>()[t] = static_cast<int32_t>(position);
    buffers.sequence_index.data<int32_t>()[t] = static_cast<int32_t>(sequence_index);
    buffers.kv_slots.data<int32_t>()[t] =
        static_cast<int32_t>(sequence.blocks[block] * config_.kv_block_size + position % config_.kv_block_size);
    buffers.token_class.data<uint8_t>()[t] = static_cast<uint8_t>(token_classes_[static_cast<size_t>(token)]);
    buffers.level.data<uint8_t>()[t] = step.level;
    buffers.phase.data<uint8_t>()[t] = static_cast<uint8_t>(sequence.phase_of(position));
  }
  CHECK_LE(static_cast<int64_t>(sequence.blocks.size()), buffers.block_tables.dim(1)) << "longer than max_model_len";
  std::copy(sequence.blocks.begin(), sequence.blocks.end(), buffers.block_tables.row<int32_t>(sequence_index));
  buffers.num_tokens += step.num_tokens;
  append_vision_spans(step, sequence, first_token, batch);
  append_logit_rows(step, sequence, first_token, batch);
}

// Runs of placeholders become one span each: inside a run the feature rows follow one another.
void ModelRunner::append_vision_spans(const SequenceStep& step, const LocalSequence& sequence, int64_t first_token,
                                      BatchInput& batch) const {
  if (!sequence.features.embeddings.defined()) return;
  bool in_run = false;
  for (int64_t i = 0; i < step.num_tokens; ++i) {
    const int64_t position = step.start + i;
    const int32_t feature = position < sequence.num_prompt() ? sequence.feature_row[static_cast<size_t>(position)] : -1;
    if (feature >= 0 && !in_run) {
      batch.vision_spans.push_back({.first_token = first_token + i, .features = &sequence.features, .first_feature = feature});
    }
    in_run = feature >= 0;
    if (in_run) ++batch.vision_spans.back().num_tokens;
  }
}

void ModelRunner::append_logit_rows(const SequenceStep& step, const LocalSequence& sequence, int64_t first_token,
                                    BatchInput& batch) {
  int32_t* rows = buffers_->logit_rows.data<int32_t>();
  for (int64_t i = 0; i < step.num_tokens; ++i) {
    const bool is_sampled = step.sample && i + 1 == step.num_tokens;
    if (!is_sampled && !sequence.is_scored(step.start + i)) continue;
    const TokenSampling sampling = is_sampled ? sequence.sampling() : TokenSampling{};
    if (sequence.is_scored(step.start + i) || !PackedTokenSampling::can_hold(sampling)) batch.logit_use = LogitUse::kLogits;
    buffers_->samplings.push_back(sampling);
    CHECK_LT(buffers_->num_logit_rows, config_.max_logit_rows);
    rows[buffers_->num_logit_rows++] = static_cast<int32_t>(first_token + i);
  }
}

void ModelRunner::read_logits(const SequenceStep& step, LocalSequence& sequence, StepOutput& output, int64_t& row,
                              SequenceResult& result) {
  const auto vocab_size = static_cast<size_t>(model_.config().vocab_size);
  for (int64_t position = step.start; position < step.start + step.num_tokens; ++position) {
    if (!sequence.is_scored(position)) continue;
    score(sequence, position, {output.logits.row<float>(row++), vocab_size});
  }
  result.prompt_nll = sequence.prompt_nll;
  result.num_scored = sequence.num_scored;
  result.kl = sequence.distance.kl;
  result.num_flips = sequence.distance.num_flips;
  if (!step.sample) return;
  result.token_id = next_token(output, row++);
  sequence.tokens.push_back(result.token_id);
}

int32_t ModelRunner::next_token(StepOutput& output, int64_t row) const {
  if (output.tokens.defined()) return output.tokens.data<int32_t>()[row];
  const std::span<float> logits(output.logits.row<float>(row), static_cast<size_t>(model_.config().vocab_size));
  return sample_token(logits, buffers_->samplings[static_cast<size_t>(row)]);
}

void ModelRunner::score(LocalSequence& sequence, int64_t position, std::span<const float> logits) {
  const GenerationRequest& request = sequence.request;
  sequence.prompt_nll += negative_log_likelihood(logits, sequence.tokens[static_cast<size_t>(position + 1)]);
  if (request.reference == ReferenceUse::kKeep) references_.keep(request.reference_id, logits);
  if (request.reference == ReferenceUse::kCompare) {
    const ReferenceDistance distance = references_.compare(request.reference_id, sequence.num_scored, logits);
    sequence.distance.kl += distance.kl;
    sequence.distance.num_flips += distance.num_flips;
  }
  ++sequence.num_scored;
}

void ModelRunner::read_usage(const Tensor& usage, SequenceResult& result) const {
  std::array<int64_t, kNumUsageColumns> sums{};
  for (int64_t t = 0; t < usage.dim(0); ++t) {
    for (int64_t c = 0; c < usage.dim(1); ++c) sums[static_cast<size_t>(c)] += usage.row<int32_t>(t)[c];
  }
  const auto sum_of = [&](UsageColumn column) { return sums[static_cast<size_t>(column)]; };
  result.pairs_run = sum_of(UsageColumn::kPairsRun);
  result.pairs_skipped = sum_of(UsageColumn::kPairsSkipped);
  result.pairs_shadow = sum_of(UsageColumn::kPairsOnShadows);
  result.bytes_sent = sum_of(UsageColumn::kRowsSent) * model_.bytes_per_sent_row();
  result.bytes_saved = sum_of(UsageColumn::kRowsSaved) * model_.bytes_per_sent_row();
}

}  // namespace skipper
