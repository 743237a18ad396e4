#include "experts/expert_store.h"

#include <gtest/gtest.h>

namespace skipper {
namespace {

ExpertStoreConfig two_layers() {
  return {.hidden_size = 3, .intermediate_size = 5, .experts = {{4, 5, 6}, {}}};
}

TEST(ExpertStore, KeepsOneArenaPerLayerAndProjection) {
  ExpertStore store(two_layers());
  store.freeze();
  EXPECT_EQ(store.num_layers(), 2);
  EXPECT_EQ(store.gate_up_arena(0).shape(), Shape({3, 10, 3}));
  EXPECT_EQ(store.down_arena(0).shape(), Shape({3, 3, 5}));
  EXPECT_EQ(store.num_local_experts(1), 0);
  EXPECT_EQ(store.gate_up_arena(1).shape(), Shape({0, 10, 3}));
  EXPECT_EQ(store.num_bytes(), size_t{3 * (30 + 15) * 2});
}

TEST(ExpertStore, NamesTheSlotOfAnExpert) {
  const ExpertStore store(two_layers());
  const ExpertHandle handle = store.handle({.layer = 0, .expert = 6});
  EXPECT_EQ(handle.slot, 2);
  EXPECT_EQ(handle.format, ExpertFormat::kBF16);
  EXPECT_EQ(handle.tier, ExpertTier::kHost);
}

TEST(ExpertStore, WritesThroughViewsIntoTheArena) {
  ExpertStore store(two_layers());
  Tensor gate_up = store.gate_up(0, 1);
  Tensor down = store.down(0, 2);
  EXPECT_EQ(gate_up.shape(), Shape({10, 3}));
  EXPECT_EQ(down.shape(), Shape({3, 5}));
  gate_up.data<bf16>()[29] = bf16(7.0f);
  down.data<bf16>()[0] = bf16(9.0f);
  store.freeze();
  EXPECT_EQ(static_cast<float>(store.gate_up_arena(0).row<bf16>(1)[29]), 7.0f);
  EXPECT_EQ(static_cast<float>(store.down_arena(0).row<bf16>(2)[0]), 9.0f);
}

TEST(ExpertStoreDeathTest, RefusesWritesAfterFreezingAndReadsBefore) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  ExpertStore store(two_layers());
  EXPECT_DEATH(store.gate_up_arena(0), "before they are loaded");
  store.freeze();
  EXPECT_DEATH(store.gate_up(0, 0), "immutable");
  EXPECT_DEATH(store.handle({.layer = 0, .expert = 3}), "not on this rank");
}

}  // namespace
}  // namespace skipper
