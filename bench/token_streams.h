// Sequences of random tokens with their KV blocks, and the steps they make together.
#pragma once

#include <cstdint>
#include <vector>

#include "model/batch_input.h"
#include "tensor/tensor.h"

namespace skipper {

struct TokenStreamConfig {
  uint32_t seed = 0;  // other seeds give other tokens
  int64_t num_tokens = 0;
  int64_t vocab_size = 0;
  int64_t block_size = 0;
  int64_t first_block = 0;
};

// A sequence whose tokens are known in advance and whose blocks of the KV cache lie one after the other.
struct TokenStream {
  explicit TokenStream(const TokenStreamConfig& config);

  int64_t num_tokens() const { return static_cast<int64_t>(token_ids.size()); }
  int64_t num_blocks() const { return static_cast<int64_t>(blocks.size()); }

  std::vector<int32_t> token_ids;
  std::vector<int32_t> blocks;
};

// The tokens of one rank in one step. Reuses its memory from step to step.
class StreamBatch {
 public:
  StreamBatch(int64_t max_streams, int64_t max_blocks, int64_t block_size);

  void clear();
  // Of the tokens appended from now on; 0 at first.
  void set_level(uint8_t level) { next_level_ = level; }
  // Tokens [begin, end) of the stream; the logits of the last are read.
  void append(const TokenStream& stream, int64_t begin, int64_t end);
  // Views of this batch, valid until it changes.
  BatchInput input() const;

 private:
  void append_token(const TokenStream& stream, int64_t position);

  int64_t block_size_;
  int64_t num_streams_ = 0;
  uint8_t next_level_ = 0;
  Tensor block_tables_;
  std::vector<int32_t> token_ids_, rotary_, positions_, sequence_index_, kv_slots_, logit_rows_;
  std::vector<uint8_t> token_class_, level_, phase_;
};

}  // namespace skipper
