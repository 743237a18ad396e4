#include "planning/plan_steps.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "base/error.h"
#include "planning/analytic_profile.h"
#include "planning/plan_request.h"

namespace skipper {
namespace {

class PlanSteps : public testing::Test {
 protected:
  // With so much memory for experts on each rank; all of them take 28 MB unrounded.
  ExpertPlan plan(const std::vector<size_t>& room, const std::vector<int32_t>& owners = {}) const {
    PlanRequest request{.model = model_,
                        .profile = profile_,
                        .settings = {.limits = {.max_tokens = 128, .max_logit_rows = 16}, .kv_cache = {.num_blocks = 64}},
                        .memory = room,
                        .owners = owners};
    const size_t fixed = problem_of(request).ranks[0].tiers.at(MemoryTier::kHost).use.fixed_bytes();
    for (size_t& memory : request.memory) memory += fixed;
    return plan_for(request);
  }

  // The larger of what both plans take, and so much more.
  static std::vector<size_t> rooms(const ExpertPlan& one, const ExpertPlan& other, size_t more) {
    std::vector<size_t> rooms;
    for (size_t rank = 0; rank < one.ranks.size(); ++rank) {
      rooms.push_back(std::max(expert_bytes(one, rank), expert_bytes(other, rank)) + more);
    }
    return rooms;
  }

  static size_t expert_bytes(const ExpertPlan& plan, size_t rank) {
    return plan.ranks[rank].tiers.at(MemoryTier::kHost).use.expert_bytes();
  }

  // Of a rank, as a server makes them: all of each layer in which any expert changes.
  size_t bytes_made(const ExpertPlan& before, const ExpertPlan& after, int rank) const {
    const auto old_layers = before.copies_of(rank), new_layers = after.copies_of(rank);
    size_t sum = 0;
    for (size_t layer = 0; layer < new_layers.size(); ++layer) {
      if (old_layers[layer] == new_layers[layer]) continue;
      for (const ExpertCopy& copy : new_layers[layer]) sum += expert_bytes_in(model_, copy.format, ComputePlace::kHost);
    }
    return sum;
  }

  // Checks every step from `from` to `to`, and returns how many there are.
  int check_steps(const ExpertPlan& from, const ExpertPlan& to, const std::vector<size_t>& room) const {
    ExpertPlan serving = from;
    int num_steps = 0;
    while (!same_formats(serving, to)) {
      ExpertPlan next = next_plan({model_, serving, to}, room);
      for (size_t rank = 0; rank < room.size(); ++rank) {
        EXPECT_LE(expert_bytes(serving, rank) + bytes_made(serving, next, static_cast<int>(rank)), room[rank]) << num_steps;
      }
      ExpertPlan checked = next;
      check_expert_plan(checked, "step");
      serving = std::move(next);
      if (++num_steps > model_.num_moe_layers()) break;
    }
    EXPECT_EQ(serving, to);
    return num_steps;
  }

  const ModelConfig model_ = load_model_config(SKIPPER_SOURCE_DIR "/models/demo");
  const PrecisionProfile profile_ = analytic_profile(model_, analytic_formats());
};

TEST_F(PlanSteps, FitBesideWhatServesAndEndWithThePlan) {
  const ExpertPlan rich = plan({29'000'000});
  for (const size_t memory : {6'000'000, 8'000'000, 12'000'000, 20'000'000}) {
    const ExpertPlan poor = plan({memory});
    const std::vector<size_t> room = rooms(rich, poor, largest_layer_bytes(model_, rich));
    EXPECT_GE(check_steps(rich, poor, room), 1) << memory;
    EXPECT_GE(check_steps(poor, rich, room), 1) << memory;
  }
}

TEST_F(PlanSteps, AreOneWhereBothPlansFitTogether) {
  const ExpertPlan rich = plan({29'000'000}), poor = plan({8'000'000});
  EXPECT_EQ(check_steps(rich, poor, rooms(rich, poor, 40'000'000)), 1);
  EXPECT_EQ(check_steps(rich, rich, rooms(rich, rich, 0)), 0);
}

TEST_F(PlanSteps, FitOnEveryRank) {
  const ExpertPlan rich = plan({20'000'000, 15'000'000});
  const ExpertPlan poor = plan({6'000'000, 5'000'000}, owners_of(rich));
  const std::vector<size_t> room = rooms(rich, poor, largest_layer_bytes(model_, rich));
  EXPECT_GE(check_steps(rich, poor, room), 1);
  EXPECT_GE(check_steps(poor, rich, room), 1);
}

TEST_F(PlanSteps, AreRefusedWithoutRoomForAnyLayer) {
  const ExpertPlan rich = plan({29'000'000}), poor = plan({8'000'000});
  EXPECT_THROW(next_plan({model_, rich, poor}, rooms(rich, poor, 0)), ResourceExhausted);
}

}  // namespace
}  // namespace skipper
