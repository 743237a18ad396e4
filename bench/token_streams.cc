#include "bench/token_streams.h"

#include <algorithm>
#include <numeric>
#include <random>

#include "cluster/token_class.h"

namespace skipper {
namespace {

template <typename T>
Tensor view(const std::vector<T>& values, const Shape& shape) {
  // An empty vector has no memory, but a rank without tokens still needs a defined tensor.
  static const T kNothing{};
  return Tensor::borrow_const(values.empty() ? &kNothing : values.data(), shape, dtype_of<T>::value);
}

}  // namespace

TokenStream::TokenStream(const TokenStreamConfig& config)
    : token_ids(static_cast<size_t>(config.num_tokens)),
      blocks(static_cast<size_t>((config.num_tokens + config.block_size - 1) / config.block_size)) {
  std::mt19937 generator(config.seed);
  for (int32_t& token : token_ids) token = static_cast<int32_t>(generator() % static_cast<uint32_t>(config.vocab_size));
  std::iota(blocks.begin(), blocks.end(), static_cast<int32_t>(config.first_block));
}

StreamBatch::StreamBatch(int64_t max_streams, int64_t max_blocks, int64_t block_size)
    : block_size_(block_size), block_tables_(Tensor::zeros({max_streams, max_blocks}, DType::kI32)) {}

void StreamBatch::clear() {
  num_streams_ = 0;
  for (auto* values : {&token_ids_, &rotary_, &positions_, &sequence_index_, &kv_slots_, &logit_rows_}) values->clear();
  for (auto* values : {&token_class_, &level_, &phase_}) values->clear();
}

void StreamBatch::append(const TokenStream& stream, int64_t begin, int64_t end) {
  for (int64_t position = begin; position < end; ++position) append_token(stream, position);
  std::ranges::copy(stream.blocks, block_tables_.row<int32_t>(num_streams_++));
  logit_rows_.push_back(static_cast<int32_t>(token_ids_.size()) - 1);
}

void StreamBatch::append_token(const TokenStream& stream, int64_t position) {
  const int32_t block = stream.blocks[static_cast<size_t>(position / block_size_)];
  token_ids_.push_back(stream.token_ids[static_cast<size_t>(position)]);
  rotary_.insert(rotary_.end(), 3, static_cast<int32_t>(position));
  positions_.push_back(static_cast<int32_t>(position));
  sequence_index_.push_back(static_cast<int32_t>(num_streams_));
  kv_slots_.push_back(static_cast<int32_t>(block * block_size_ + position % block_size_));
  token_class_.push_back(static_cast<uint8_t>(TokenClass::kText));
  level_.push_back(next_level_);
  phase_.push_back(static_cast<uint8_t>(TokenPhase::kPrompt));
}

BatchInput StreamBatch::input() const {
  const auto num_tokens = static_cast<int64_t>(token_ids_.size());
  BatchInput batch;
  batch.token_ids = view(token_ids_, {num_tokens});
  batch.rotary_positions = view(rotary_, {num_tokens, 3});
  batch.positions = view(positions_, {num_tokens});
  batch.sequence_index = view(sequence_index_, {num_tokens});
  batch.kv_slots = view(kv_slots_, {num_tokens});
  batch.block_tables = block_tables_.first(num_streams_);
  batch.token_class = view(token_class_, {num_tokens});
  batch.level = view(level_, {num_tokens});
  batch.phase = view(phase_, {num_tokens});
  batch.logit_rows = view(logit_rows_, {static_cast<int64_t>(logit_rows_.size())});
  return batch;
}

}  // namespace skipper
