#include "expert_parallel/cuda/device_skip_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cfloat>
#include <cstring>

#include "base/error.h"
#include "kernels/cuda/routing.h"
#include "tests/kernels/cuda/gpu_test.h"

namespace skipper::cuda {
namespace {

LevelTable one_level(const OperatingPoint& point) {
  LevelTable table = unskipped_levels(2);
  table.levels.push_back(point);
  return table;
}

OperatingPoint plain_point() { return {.alpha = {std::vector{0.25f, 0.75f}, std::vector{0.5f, 0.5f}}, .tau = {0.1f, 0.2f}}; }

std::string refusal(const OperatingPoint& point) {
  try {
    require_rules_of_gpu(one_level(point));
  } catch (const InvalidRequest& error) {
    return error.what();
  }
  return "";
}

TEST(RulesOfGpu, AreAllThatLookAtOneTokenAlone) {
  OperatingPoint point = plain_point();
  point.tau_dst[0] = {0.0f, 0.1f, 0.2f};
  point.exempt_local = true;
  point.renormalize = true;
  EXPECT_EQ(refusal(point), "");
}

TEST(RulesOfGpu, RefusesRulesOfTheBatchNamingLevelAndKey) {
  using testing::HasSubstr;
  OperatingPoint point = plain_point();
  point.rank_capacity = 1.5f;
  EXPECT_THAT(refusal(point), HasSubstr("level 1 uses rank_capacity"));
  point = plain_point();
  point.decode_base_k = 2;
  EXPECT_THAT(refusal(point), HasSubstr("level 1 uses decode_base_k"));
  point = plain_point();
  point.decode_rank_experts = 8;
  EXPECT_THAT(refusal(point), HasSubstr("level 1 uses decode_rank_experts"));
  point = plain_point();
  point.identity_bypass[1] = {0, 1};
  EXPECT_THAT(refusal(point), HasSubstr("level 1 uses identity_bypass"));
}

TEST(RulesOfGpu, RefusesSimilarExpertsAndAttentionNamingLevelAndKey) {
  using testing::HasSubstr;
  OperatingPoint point = plain_point();
  point.pair_rule = PairRule::kSimilar;
  EXPECT_THAT(refusal(point), HasSubstr("level 1 uses expert_similarity"));
  point = plain_point();
  point.protect_attention = 0.02f;
  EXPECT_THAT(refusal(point), HasSubstr("level 1 uses protect_attention"));
}

class DeviceSkipTableTest : public GpuTest {
 protected:
  SkipRow row_at(const DeviceSkipTable& table, int layer, int64_t index) {
    const Tensor rows = on_host(table.skip_rows(layer));
    SkipRow row;
    std::memcpy(&row, rows.row<uint8_t>(index), sizeof(row));
    return row;
  }
};

TEST_F(DeviceSkipTableTest, HoldsTheThresholdsOfLevelClassAndPhase) {
  OperatingPoint point = plain_point();
  point.tau_generated = 0.3f;
  point.tau_dst[1] = {0.0f, 0.4f, 0.5f};
  point.protect_top1 = true;
  DeviceSkipTable table({.num_moe_layers = 2, .num_experts = 3}, Device::cuda(0));
  table.upload(one_level(point), stream());
  EXPECT_EQ(row_at(table, 1, 0).tau, 0.0f);
  const SkipRow text_prompt = row_at(table, 1, 1 * 6 + 0 * 2 + 0), text_generated = row_at(table, 1, 1 * 6 + 0 * 2 + 1);
  EXPECT_EQ(text_prompt.alpha, 0.75f);
  EXPECT_EQ(text_prompt.tau, 0.1f);
  EXPECT_EQ(text_generated.tau, 0.3f);
  EXPECT_EQ(text_prompt.protect_top1, 1);
  const SkipRow vision = row_at(table, 0, 1 * 6 + 1 * 2 + 1);
  EXPECT_EQ(vision.alpha, 0.5f);
  EXPECT_EQ(vision.tau, 0.2f);
  EXPECT_EQ(vision.tau_dst[1], 0.4f);
  EXPECT_EQ(vision.tau_dst[2], 0.5f);
  EXPECT_EQ(row_at(table, 0, 1 * 6 + 2 * 2).tau, 0.0f) << "protected tokens have no thresholds";
}

TEST_F(DeviceSkipTableTest, HasTheScalesOfALevelAndOneElsewhere) {
  OperatingPoint point = plain_point();
  point.expert_scale = {1.0f, 2.0f, 3.0f, 4.0f, 5.0f, 6.0f};
  DeviceSkipTable table({.num_moe_layers = 2, .num_experts = 3}, Device::cuda(0));
  table.upload(one_level(point), stream());
  const Tensor scale = on_host(table.expert_scale(1));
  const float* level_0 = scale.row<float>(0);
  const float* level_1 = scale.row<float>(1);
  EXPECT_EQ(std::vector<float>(level_0, level_0 + 3), (std::vector{1.0f, 1.0f, 1.0f}));
  EXPECT_EQ(std::vector<float>(level_1, level_1 + 3), (std::vector{4.0f, 5.0f, 6.0f}));
}

TEST_F(DeviceSkipTableTest, AnotherVersionTakesThePlaceOfTheOldWhereItLies) {
  DeviceSkipTable table({.num_moe_layers = 2, .num_experts = 3}, Device::cuda(0));
  table.upload(one_level(plain_point()), stream());
  const std::byte* place = table.skip_rows(0).bytes();
  LevelTable plain = unskipped_levels(2);
  plain.version = 7;
  table.upload(plain, stream());
  EXPECT_EQ(table.skip_rows(0).bytes(), place);
  EXPECT_EQ(row_at(table, 0, 6).tau, 0.0f);
}

}  // namespace
}  // namespace skipper::cuda
