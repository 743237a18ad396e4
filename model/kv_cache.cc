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

// Rows of slots, whose heads GPUs read side by side.
PagedKv empty_device_kv(const PagedKvShape& shape, Device device) {
  const Shape rows{shape.num_blocks * shape.block_size, shape.kv_heads, shape.head_dim};
  // Zeros: attention may read slots that nobody wrote, and gives them no weight; garbage could be NaN.
  return {shape, Tensor::zeros(rows, DType::kBF16, device), Tensor::zeros(rows, DType::kBF16, device)};
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
  const bool is_on_gpu = device.kind == DeviceKind::kCuda;
  if (is_on_gpu && config.dtype != DType::kBF16) {
    throw InvalidRequest("dtype: " + std::string(name_of(config.dtype)) + " is not supported on a GPU; expected bf16", "dtype");
  }
  for (int64_t layer = 0; layer < model.num_layers(); ++layer) {
    layers_.push_back(is_on_gpu ? empty_device_kv(shape, device) : empty_paged_kv(shape, config.dtype, device));
  }
}

size_t KvCache::bytes_per_block(const ModelConfig& model, const KvCacheConfig& config) {
  PagedKvShape shape = layer_shape(model, config);
  shape.num_blocks = 1;
  return static_cast<size_t>(model.num_layers()) * paged_kv_bytes(shape, config.dtype);
}

}  // namespace skipper
