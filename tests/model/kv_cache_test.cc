#include "model/kv_cache.h"

#include <gmock/gmock.h>

#include "base/error.h"
#include "tests/model/prompt_fixture.h"

namespace skipper {
namespace {

TEST(KvCache, HasOnePagedPairPerLayer) {
  const ModelConfig model = load_model_config(demo_model());
  KvCache cache(model, {.num_blocks = 3, .block_size = 32, .dtype = DType::kF32});
  EXPECT_EQ(cache.layer(5).shape, PagedKvShape({.num_blocks = 3, .block_size = 32, .kv_heads = 2, .head_dim = 64}));
  EXPECT_EQ(cache.layer(0).k.dtype(), DType::kF32);
  EXPECT_NE(cache.layer(0).k.bytes(), cache.layer(1).k.bytes());
}

TEST(KvCache, CountsTheBytesOfABlockOverAllLayers) {
  const ModelConfig model = load_model_config(demo_model());
  const KvCacheConfig config{.num_blocks = 4, .block_size = 16, .dtype = DType::kBF16};
  KvCache cache(model, config);
  size_t bytes = 0;
  for (int64_t layer = 0; layer < model.num_layers(); ++layer) {
    bytes += cache.layer(layer).k.num_bytes() + cache.layer(layer).v.num_bytes();
  }
  EXPECT_EQ(KvCache::bytes_per_block(model, config) * 4, bytes);
}

TEST(KvCache, RefusesSizesByName) {
  const ModelConfig model = load_model_config(demo_model());
  EXPECT_THROW(KvCache(model, {.num_blocks = 0, .block_size = 16}), InvalidRequest);
  EXPECT_THROW(KvCache(model, {.num_blocks = 1, .block_size = 0}), InvalidRequest);
  EXPECT_THROW(KvCache(model, {.num_blocks = 1, .block_size = 24}), InvalidRequest);
  EXPECT_THROW(KvCache(model, {.num_blocks = 1, .block_size = 8192}), InvalidRequest);
  EXPECT_THROW(KvCache(model, {.num_blocks = 1, .block_size = 16, .dtype = DType::kF16}), InvalidRequest);
}

}  // namespace
}  // namespace skipper
