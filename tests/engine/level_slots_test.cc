#include "engine/level_slots.h"

#include <gtest/gtest.h>

#include "engine/level_order.h"

namespace skipper {
namespace {

OperatingPoint point(float tau) {
  OperatingPoint result = unskipped_levels(2).levels.front();
  result.tau = {tau, tau};
  return result;
}

LevelTable table(const std::vector<float>& taus) {
  LevelTable result = unskipped_levels(2);
  for (const float tau : taus) result.levels.push_back(point(tau));
  return result;
}

void set(LevelSlots& slots, const LevelTable& levels) {
  slots.set_levels(levels, places_of(levels.levels, levels.levels.size()));
}

const ExemptLayers kFirstOfPrompt = {std::vector<uint8_t>{1, 0}, std::vector<uint8_t>{}};

TEST(LevelSlots, AreTheLevelsAsLongAsAllLayersSkip) {
  LevelSlots slots(table({0.1f, 0.2f}));
  EXPECT_EQ(slots.table().version, 1u);
  set(slots, table({0.1f, 0.2f, 0.3f}));
  EXPECT_EQ(slots.table().version, 2u);
  EXPECT_EQ(slots.table().levels, table({0.1f, 0.2f, 0.3f}).levels);
  for (size_t level = 0; level < 4; ++level) EXPECT_EQ(slots.map().slot_of_level[level], level);
}

TEST(LevelSlots, GiveExemptLayersNewSlotsAndKeepTheOld) {
  LevelSlots slots(table({0.1f, 0.2f}));
  EXPECT_EQ(slots.slots_missing(kFirstOfPrompt), 2u);
  slots.set_exempt(kFirstOfPrompt);
  EXPECT_EQ(slots.table().levels.size(), 5u);
  EXPECT_EQ(slots.table().levels[1], point(0.1f)) << "tokens under way compute again under this";
  const uint8_t slot = slots.map().slot_of_level[2];
  EXPECT_EQ(slots.table().levels[slot].exempt_layers, kFirstOfPrompt);
  EXPECT_EQ(slots.table().levels[slot].tau[0], 0.2f);
  EXPECT_EQ(slots.map().level_of_slot[slot], 2);
  EXPECT_EQ(slots.map().slot_of_level[0], 0) << "gold has one form";
}

TEST(LevelSlots, TakeNoSlotTwice) {
  LevelSlots slots(table({0.1f}));
  slots.set_exempt(kFirstOfPrompt);
  slots.set_exempt({});
  EXPECT_EQ(slots.map().slot_of_level[1], 1);
  EXPECT_EQ(slots.slots_missing(kFirstOfPrompt), 0u);
  const uint32_t version = slots.table().version;
  slots.set_exempt(kFirstOfPrompt);
  EXPECT_EQ(slots.table().levels.size(), 3u);
  EXPECT_GT(slots.table().version, version) << "ranks must hear of it";
}

TEST(LevelSlots, KeepLevelsWithTheSameNumbersApart) {
  LevelSlots slots(table({0.1f, 0.1f}));
  slots.set_exempt(kFirstOfPrompt);
  EXPECT_EQ(slots.map().level_of_slot[slots.map().slot_of_level[1]], 1);
  EXPECT_EQ(slots.map().level_of_slot[slots.map().slot_of_level[2]], 2);
}

TEST(LevelSlots, LetAnAppendedLevelFollowTheForms) {
  LevelSlots slots(table({0.1f}));
  slots.set_exempt(kFirstOfPrompt);
  set(slots, table({0.1f, 0.2f}));
  EXPECT_EQ(slots.exempt(), ExemptLayers{}) << "another level's saving is another question";
  EXPECT_EQ(slots.map().slot_of_level[1], 1);
  EXPECT_EQ(slots.map().slot_of_level[2], 3);
  EXPECT_EQ(slots.table().levels[3], point(0.2f));
  set(slots, table({0.5f}));
  EXPECT_EQ(slots.table().levels, table({0.5f}).levels) << "levels that do not go on start anew";
  EXPECT_EQ(slots.map().slot_of_level[2], 2);
}

}  // namespace
}  // namespace skipper
