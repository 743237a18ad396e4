#include "model/kv_cache.h"

#include <string>

#include "base/error.h"

namespace skipper {

void KvCacheConfig::validate() const {
  if (num_blocks < 1) {
    throw InvalidRequest("num_blocks: " + std::to_string(num_blocks) + " is out of range; expected at least 1", "num_blocks");
  }
  if (block_size < 1 || block_size > 4096) {
    throw InvalidRequest("block_size: " + std::to_string(block_size) + " is out of range; expected 1 to 4096", "block_size");
  }
  if (dtype != DType::kBF16 && dtype != DType::kF32) {
    throw InvalidRequest("dtype: " + std::string(name_of(dtype)) + " is not supported; expected bf16 or f32", "dtype");
  }
}

KvCache::KvCache(const ModelConfig& model, const KvCacheConfig& config, Device device) : config_(config) {
  config.validate();
  const KvLayout& kv = model.attention.kv;
  for (int64_t layer = 0; layer < model.num_layers(); ++layer) {
    const Shape keys{config.num_blocks, config.block_size, kv.kv_heads, kv.key_dim};
    const Shape values{config.num_blocks, config.block_size, kv.kv_heads, kv.value_dim};
    layers_.push_back({Tensor::empty(keys, config.dtype, device), Tensor::empty(values, config.dtype, device)});
  }
}

size_t KvCache::bytes_per_block(const ModelConfig& model, const KvCacheConfig& config) {
  const int64_t elements = model.num_layers() * config.block_size * model.attention.kv.num_elements();
  return static_cast<size_t>(elements) * size_of(config.dtype);
}

}  // namespace skipper
