// Limits and sizes of the engine, the same on every rank.
#pragma once

#include <chrono>
#include <cstdint>

namespace skipper {

struct EngineConfig {
  int64_t max_tokens_per_step = 512;     // per rank: decode tokens and prompt chunks together; bounds the decode gap
  int64_t max_sequences_per_rank = 64;   // running at once on one rank
  int64_t max_logit_rows = 128;          // per rank and step: tokens whose logits are computed
  int64_t kv_blocks_per_rank = 2048;     // 0: what the memory of a GPU holds beside the weights
  int64_t kv_block_size = 16;            // tokens of a block, a multiple of 16
  int64_t max_model_len = 4096;          // prompt and generated tokens of one request
  int64_t queue_capacity = 256;          // requests accepted and not yet finished or running
  std::chrono::milliseconds idle_heartbeat{1000};  // an idle group exchanges a heartbeat this often

  // Without a number of blocks, more than any request has.
  int64_t kv_tokens_per_rank() const {
    return kv_blocks_per_rank > 0 ? kv_blocks_per_rank * kv_block_size : int64_t{1} << 31;
  }
  // Throws InvalidFile naming the key ("engine.max_tokens_per_step") whose value cannot work.
  void validate() const;
};

}  // namespace skipper
