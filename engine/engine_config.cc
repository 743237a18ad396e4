#include "engine/engine_config.h"

#include "base/config_limit.h"

namespace skipper {

void EngineConfig::validate() const {
  require({"engine.max_tokens_per_step", max_tokens_per_step, 1, 1 << 20});
  require({"engine.max_sequences_per_rank", max_sequences_per_rank, 1, max_tokens_per_step});
  require({"engine.max_logit_rows", max_logit_rows, max_sequences_per_rank, 1 << 20});
  require({"engine.kv_block_size", kv_block_size, 1, 4096});
  require({"engine.kv_blocks_per_rank", kv_blocks_per_rank, 1, (int64_t{1} << 31) / kv_block_size - 1});
  require({"engine.max_model_len", max_model_len, 2, kv_tokens_per_rank()});
  require({"engine.queue_capacity", queue_capacity, 1, 1 << 20});
  require({"engine.idle_heartbeat_ms", idle_heartbeat.count(), 10, 60000});
}

}  // namespace skipper
