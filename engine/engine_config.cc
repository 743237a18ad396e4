#include "engine/engine_config.h"

#include <string>

#include "base/config_limit.h"
#include "base/error.h"
#include "kernels/paged_attention.h"

namespace skipper {

void EngineConfig::validate() const {
  require({"engine.max_tokens_per_step", max_tokens_per_step, 1, 1 << 20});
  require({"engine.max_sequences_per_rank", max_sequences_per_rank, 1, max_tokens_per_step});
  require({"engine.max_logit_rows", max_logit_rows, max_sequences_per_rank, 1 << 20});
  require({"engine.kv_block_size", kv_block_size, kKvPanelPositions, 4096});
  if (kv_block_size % kKvPanelPositions != 0) {
    throw InvalidFile("engine.kv_block_size: " + std::to_string(kv_block_size) + " is not a multiple of " +
                      std::to_string(kKvPanelPositions));
  }
  require({"engine.kv_blocks_per_rank", kv_blocks_per_rank, 0, (int64_t{1} << 31) / kv_block_size - 1});
  require({"engine.max_model_len", max_model_len, 2, kv_tokens_per_rank()});
  require({"engine.queue_capacity", queue_capacity, 1, 1 << 20});
  require({"engine.idle_heartbeat_ms", idle_heartbeat.count(), 10, 60000});
}

}  // namespace skipper
