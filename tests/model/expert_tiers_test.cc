#include "model/expert_tiers.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "base/error.h"

namespace skipper {
namespace {

using ExpertBytes = std::vector<std::vector<size_t>>;

constexpr auto kDevice = GpuExpertTier::kDevice;
constexpr auto kStreamed = GpuExpertTier::kHostStreamed;

size_t sum_of(const ExpertBytes& bytes) {
  size_t sum = 0;
  for (const auto& layer : bytes) {
    for (const size_t expert : layer) sum += expert;
  }
  return sum;
}

size_t num_streamed(const ExpertTiers& tiers, size_t layer) {
  return static_cast<size_t>(std::ranges::count(tiers.tiers.at(layer), kStreamed));
}

TEST(ExpertTiers, AreAllOnTheDeviceUnlessToldOtherwise) {
  const ExpertBytes bytes(3, std::vector<size_t>(4, 100));
  EXPECT_EQ(choose_expert_tiers(bytes, {}), ExpertTiers{});
  EXPECT_EQ(choose_expert_tiers(bytes, {.device_bytes = sum_of(bytes)}), ExpertTiers{});
  EXPECT_EQ(ExpertTiers{}.at(2, 3), kDevice);
}

TEST(ExpertTiers, AreAllStreamedWithoutMemory) {
  const ExpertTiers tiers = choose_expert_tiers(ExpertBytes(2, std::vector<size_t>(3, 100)), {.device_bytes = 0});
  EXPECT_EQ(tiers.tiers, std::vector(2, std::vector(3, kStreamed)));
  EXPECT_FALSE(tiers.are_staged);
}

TEST(ExpertTiers, ShareTheMemoryOverTheLayers) {
  // 48 layers of 128 experts; half of the memory holds the staging of two layers besides.
  const ExpertBytes bytes(48, std::vector<size_t>(128, 1000));
  const ExpertTiers tiers = choose_expert_tiers(bytes, {.device_bytes = sum_of(bytes) / 2});
  EXPECT_TRUE(tiers.are_staged);
  for (size_t layer = 0; layer < 48; ++layer) {
    EXPECT_NEAR(static_cast<double>(num_streamed(tiers, layer)), 67.0, 2.0) << layer;
    EXPECT_EQ(tiers.tiers[layer].front(), kDevice);
    EXPECT_EQ(tiers.tiers[layer].back(), kStreamed);
  }
}

TEST(ExpertTiers, NeverTakeMoreThanTheMemory) {
  std::mt19937 random(7);
  for (int round = 0; round < 300; ++round) {
    ExpertBytes bytes(1 + random() % 13);
    for (auto& layer : bytes) {
      layer.resize(random() % 9);
      for (size_t& expert : layer) expert = 1 + random() % 1000;
    }
    const size_t room = random() % (sum_of(bytes) + 2);
    const ExpertTiers tiers = choose_expert_tiers(bytes, {.device_bytes = room});
    const ExpertTierBytes used = bytes_of(tiers, bytes);
    EXPECT_LE(used.device + used.staging, room);
    EXPECT_EQ(used.device + used.streamed, sum_of(bytes));
    EXPECT_EQ(used.staging > 0, tiers.are_staged && used.streamed > 0);
  }
}

TEST(ExpertTiers, AreNotStagedWhereTwoLayersFindNoRoom) {
  const ExpertBytes bytes(10, std::vector<size_t>(8, 100));
  EXPECT_FALSE(choose_expert_tiers(bytes, {.device_bytes = 1500}).are_staged);
  const ExpertTiers staged = choose_expert_tiers(bytes, {.device_bytes = 1800});
  EXPECT_TRUE(staged.are_staged);
  EXPECT_EQ(bytes_of(staged, bytes).staging, 1600u);
}

TEST(ExpertTiers, LeaveTheOthersToTheHostWhereTold) {
  const ExpertBytes bytes(10, std::vector<size_t>(8, 100));
  const ExpertTiers tiers = choose_expert_tiers(bytes, {.device_bytes = 4000, .others = GpuExpertTier::kHostComputed});
  EXPECT_FALSE(tiers.are_staged);  // nothing is streamed
  const ExpertTierBytes used = bytes_of(tiers, bytes);
  EXPECT_EQ(used.device, 4000u);
  EXPECT_EQ(used.computed, 4000u);
  EXPECT_EQ(used.streamed + used.staging, 0u);
}

TEST(ExpertTiers, AreToldByTwoWords) {
  EXPECT_EQ(parse_host_expert_tier("stream", "gpu: host_experts"), kStreamed);
  EXPECT_EQ(parse_host_expert_tier("compute", "gpu: host_experts"), GpuExpertTier::kHostComputed);
  EXPECT_THROW(parse_host_expert_tier("device", "gpu: host_experts"), InvalidFile);
}

TEST(ExpertTiers, OfAModelWithoutExpertsAreNone) {
  EXPECT_EQ(choose_expert_tiers({}, {.device_bytes = 0}), ExpertTiers{});
  EXPECT_EQ(choose_expert_tiers({{}, {}}, {.device_bytes = 0}), ExpertTiers{});
}

TEST(ExpertTiers, KnowWhatExpertsTakeOnAGpu) {
  const WeightFormat int4{WeightKind::kInt4, 64};
  const ExpertStore store({.hidden_size = 128, .intermediate_size = 64, .slots = {{{0, int4}, {1, {}}}, {}}});
  const auto bytes = gpu_expert_bytes(store);
  ASSERT_EQ(bytes.size(), 2u);
  ASSERT_EQ(bytes[0].size(), 2u);
  // Two tiles of two chunks and two of one: 2048 bytes of codes and 128 of scales each.
  EXPECT_EQ(bytes[0][0], 6u * (2048 + 128));
  EXPECT_EQ(bytes[0][1], 6u * 8192);
  EXPECT_TRUE(bytes[1].empty());
}

}  // namespace
}  // namespace skipper
