// Paged key/value memory of all layers of one rank.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/paged_attention.h"
#include "model/model_config.h"
#include "tensor/device.h"

namespace skipper {

struct KvCacheConfig {
  int64_t num_blocks = 0;
  int64_t block_size = 16;  // tokens, a multiple of 16
  DType dtype = DType::kBF16;  // or kF32

  // Throws InvalidRequest naming the key.
  void validate() const;
};

// Which block belongs to whom is the engine's business. Memory of blocks never written costs no page on the host. On a GPU keys
// and values of a layer are [num_blocks · block_size, kv_heads, D] bf16 each, as kernels/cuda/decoder_rows.h has them. Engine
// thread only.
class KvCache {
 public:
  // Throws DeviceError when there is no memory, InvalidRequest for an f32 cache on a GPU.
  KvCache(const ModelConfig& model, const KvCacheConfig& config, Device device = Device::host());

  // Bytes of one block over all layers: what a budget divides by.
  static size_t bytes_per_block(const ModelConfig& model, const KvCacheConfig& config);

  int64_t num_blocks() const { return config_.num_blocks; }
  int64_t block_size() const { return config_.block_size; }
  // Keys and values of one decoder layer.
  PagedKv& layer(int64_t index) { return layers_.at(static_cast<size_t>(index)); }

 private:
  KvCacheConfig config_;
  std::vector<PagedKv> layers_;
};

}  // namespace skipper
