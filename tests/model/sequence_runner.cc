#include "tests/model/sequence_runner.h"

#include <algorithm>

#include "tests/support/spawn_ranks.h"

namespace skipper {
namespace {

template <typename T>
Tensor borrow(const std::vector<T>& values, const Shape& shape) {
  return Tensor::borrow_const(values.data(), shape, dtype_of<T>::value);
}

ClusterTopology one_node(int num_ranks) { return ClusterTopology(std::vector<int>(static_cast<size_t>(num_ranks), 0)); }

}  // namespace

// A sequence with its blocks of the cache; later sequences get lower blocks, so that block ids are no token order.
struct SequenceRunner::Placed {
  const TestSequence* sequence;
  ImageFeatures features;
  RotaryPositions rotary;
  std::vector<int32_t> blocks;
  int64_t num_features_done = 0;
};

struct SequenceRunner::Batch {
  std::vector<int32_t> token_ids, rotary, positions, sequence_index, kv_slots, logit_rows;
  std::vector<uint8_t> token_class, level, phase;
  std::vector<VisionSpan> vision_spans;
  std::vector<size_t> row_owner;  // sequence of each logit row

  BatchInput input(const Tensor& block_tables) const {
    const auto count = static_cast<int64_t>(token_ids.size());
    BatchInput batch;
    // Not one of these may be null, also for an empty rank.
    static const std::vector<int32_t> kEmptyInts(1);
    static const std::vector<uint8_t> kEmptyBytes(1);
    const auto ints = [&](const std::vector<int32_t>& values, const Shape& shape) {
      return borrow(values.empty() ? kEmptyInts : values, shape);
    };
    const auto bytes = [&](const std::vector<uint8_t>& values) {
      return borrow(values.empty() ? kEmptyBytes : values, {count});
    };
    batch.token_ids = ints(token_ids, {count});
    batch.rotary_positions = ints(rotary, {count, 3});
    batch.positions = ints(positions, {count});
    batch.sequence_index = ints(sequence_index, {count});
    batch.kv_slots = ints(kv_slots, {count});
    batch.block_tables = block_tables;
    batch.token_class = bytes(token_class);
    batch.level = bytes(level);
    batch.phase = bytes(phase);
    batch.logit_rows = ints(logit_rows, {static_cast<int64_t>(logit_rows.size())});
    batch.vision_spans = vision_spans;
    return batch;
  }
};

TestSequence sequence_of(const PromptFixture& prompt) { return {prompt.token_ids, prompt.images, prompt.rows}; }

RunPlan plan_for(int64_t longest, int64_t chunk_size) { return {chunk_size, (longest + chunk_size - 1) / chunk_size}; }

SequenceRunner::SequenceRunner(const std::filesystem::path& model, Communicator& data, const LevelTable& levels,
                               const RunFormats& formats)
    : config_(load_model_config(model)),
      topology_(one_node(data.size())),
      workers_(formats.num_threads),
      stream_(formats.device == Device::host() ? std::make_unique<Stream>(workers_) : std::make_unique<Stream>(formats.device)) {
  const ParallelContext parallel{data, topology_, levels, formats.rows, formats.device, formats.gpu_data, formats.graphs};
  model_ = std::make_unique<MultimodalModel>(model, config_, parallel, StepLimits{kMaxTokens, 512},
                                             WeightLoading{formats.weights, workers_, nullptr, {}, formats.expert_tiers,
                                                           formats.assignment, formats.disk});
  cache_ = std::make_unique<KvCache>(config_, KvCacheConfig{.num_blocks = kNumBlocks, .block_size = 16, .dtype = formats.kv},
                                     formats.device);
}

std::vector<std::vector<float>> SequenceRunner::run(const std::vector<TestSequence>& sequences, const RunPlan& plan) {
  const int64_t block_size = cache_->block_size();
  std::vector<Placed> placed;
  auto next_block = static_cast<int32_t>(kNumBlocks);
  Tensor block_tables = Tensor::zeros({static_cast<int64_t>(sequences.size()), kNumBlocks}, DType::kI32);
  for (const TestSequence& sequence : sequences) {
    Placed place{&sequence, {}, sequence_rotary_positions(sequence.token_ids, grids_of(sequence.images), config_), {}, 0};
    if (!sequence.images.empty()) place.features = model_->encode_images(sequence.images, *stream_);
    const int64_t num_blocks = (static_cast<int64_t>(sequence.token_ids.size()) + block_size - 1) / block_size;
    for (int64_t i = 0; i < num_blocks; ++i) place.blocks.push_back(--next_block);
    std::ranges::copy(place.blocks, block_tables.row<int32_t>(static_cast<int64_t>(placed.size())));
    placed.push_back(std::move(place));
  }
  std::vector<std::vector<float>> logits(sequences.size());
  for (int64_t step = 0; step < plan.num_steps; ++step) {
    Batch batch;
    for (size_t i = 0; i < placed.size(); ++i) append_chunk(placed[i], i, plan, step, batch);
    BatchInput input = batch.input(block_tables);
    if (plan.slot_rows > 0) {
      const auto num_rows = static_cast<int32_t>(input.num_tokens());
      input.shape_of_all = {.most_rows = num_rows, .most_logit_rows = num_rows, .is_decode = true, .slot_rows = plan.slot_rows};
    }
    const Tensor result = model_->forward(input, *cache_, *stream_).logits;
    for (size_t row = 0; row < batch.row_owner.size(); ++row) {
      const float* values = result.row<float>(static_cast<int64_t>(row));
      std::vector<float>& target = logits[batch.row_owner[row]];
      target.insert(target.end(), values, values + config_.vocab_size);
    }
  }
  return logits;
}

void SequenceRunner::append_chunk(Placed& placed, size_t index, const RunPlan& plan, int64_t step, Batch& batch) const {
  const TestSequence& sequence = *placed.sequence;
  const auto length = static_cast<int64_t>(sequence.token_ids.size());
  const int64_t begin = std::min(length, step * plan.chunk_size);
  const int64_t end = std::min(length, begin + plan.chunk_size);
  for (int64_t position = begin; position < end; ++position) {
    const auto token = static_cast<int64_t>(batch.token_ids.size());
    const int32_t id = sequence.token_ids[static_cast<size_t>(position)];
    const bool is_image = config_.vision && id == config_.vision->image_token_id;
    const int32_t block = placed.blocks[static_cast<size_t>(position / cache_->block_size())];
    batch.token_ids.push_back(id);
    const int32_t* rotary = placed.rotary.positions.row<int32_t>(position);
    batch.rotary.insert(batch.rotary.end(), rotary, rotary + 3);
    batch.positions.push_back(static_cast<int32_t>(position));
    batch.sequence_index.push_back(static_cast<int32_t>(index));
    batch.kv_slots.push_back(static_cast<int32_t>(block * cache_->block_size() + position % cache_->block_size()));
    batch.token_class.push_back(static_cast<uint8_t>(is_image ? TokenClass::kVision : sequence.text_class));
    batch.level.push_back(sequence.level);
    batch.phase.push_back(static_cast<uint8_t>(TokenPhase::kPrompt));
    if (is_image) batch.vision_spans.push_back({token, 1, &placed.features, placed.num_features_done++});
    if (std::ranges::binary_search(sequence.rows, static_cast<int32_t>(position))) {
      batch.logit_rows.push_back(static_cast<int32_t>(token));
      batch.row_owner.push_back(index);
    }
  }
}

std::vector<float> logits_alone(const std::filesystem::path& model, const TestSequence& sequence, const RunFormats& formats) {
  std::vector<float> result;
  spawn_ranks(1, [&](Communicator& comm) {
    const LevelTable levels = unskipped_levels(load_model_config(model).num_moe_layers());
    SequenceRunner runner(model, comm, levels, formats);
    const auto length = static_cast<int64_t>(sequence.token_ids.size());
    result = runner.run({sequence}, plan_for(length, length)).front();
  });
  return result;
}

}  // namespace skipper
