#include "model/kv_cache.h"

#include <string>

#include "base/error.h"

namespace skipper {
namespace {

PagedKvShape layer_shape(const ModelConfig& model, const KvCacheConfig& config) {
  const KvLayout& kv = model.attention.kv;
  CHECK_EQ(kv.key_dim, kv.value_dim) << "paged attention has one size for keys and values";
  return {config.num_blocks, config.block_size, kv.kv_heads, kv.key_dim};
}

}  // namespace

void KvCacheConfig::validate() const {
  if (num_blocks < 1) {
    throw InvalidRequest("num_blocks: " + std::to_string(num_blocks) + " is out of range; expected at least 1", "num_blocks");
  }
  if (block_size < kKvPanelPositions || block_size > 4096 || block_size % kKvPanelPositions != 0) {
    throw InvalidRequest("block_size: " + std::to_string(block_size) + " is not possible; expected a multiple of " +
                             std::to_string(kKvPanelPositions) + " up to 4096",
                         "block_size");
  }
  if (dtype != DType::kBF16 && dtype != DType::kF32) {
    throw InvalidRequest("dtype: " + std::string(name_of(dtype)) + " is not supported; expected bf16 or f32", "dtype");
  }
}

KvCache::KvCache(const ModelConfig& model, const KvCacheConfig& config, Device device) : config_(config) {
  config.validate();
  const PagedKvShape shape = layer_shape(model, config);
  for (int64_t layer = 0; layer < model.num_layers(); ++layer) layers_.push_back(empty_paged_kv(shape, config.dtype, device));
}

size_t KvCache::bytes_per_block(const ModelConfig& model, const KvCacheConfig& config) {
  PagedKvShape shape = layer_shape(model, config);
  shape.num_blocks = 1;
  return static_cast<size_t>(model.num_layers()) * paged_kv_bytes(shape, config.dtype);
}

}  // namespace skipper
