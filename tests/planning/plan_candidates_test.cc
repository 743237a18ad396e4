#include "planning/plan_candidates.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <set>
#include <span>

#include "planning/analytic_profile.h"
#include "planning/plan_solver.h"

namespace skipper {
namespace {

const WeightFormat kInt2{WeightKind::kInt2Asymmetric, 32}, kInt3{WeightKind::kInt3Asymmetric, 32}, kInt4{WeightKind::kInt4, 64},
    kInt8{WeightKind::kInt8, 64};

// Experts of a layer differ by up to a factor of a thousand; budgets are those of one format and a share of the way to unrounded.
class PlanCandidates : public testing::Test {
 protected:
  PlanCandidates()
      : model_(load_model_config(SKIPPER_SOURCE_DIR "/models/demo")),
        profile_(analytic_profile(model_, std::vector<WeightFormat>{kInt2, kInt3, kInt4, kInt8})) {
    std::mt19937 random(5);
    std::lognormal_distribution<double> factor(0.0, 1.5);
    for (LayerSensitivity& layer : profile_.layers) {
      for (ExpertSensitivity& expert : layer.experts) {
        const double times = factor(random);
        for (double& error : expert.error) error *= times;
      }
    }
    for (const WeightFormat& format : profile_.formats) profile_.uniform_loss.push_back(rounding_variance(format));
  }

  size_t bytes_of_all(const WeightFormat& format) const {
    return static_cast<size_t>(model_.num_moe_layers() * model_.moe.num_experts) *
           expert_bytes_in(model_, format, ComputePlace::kHost);
  }

  PlanProblem problem(size_t room) const {
    PlanProblem problem{.model = model_, .profile = profile_, .ranks = {}};
    problem.ranks.emplace_back().tiers[MemoryTier::kHost].budget_bytes = room;
    return problem;
  }

  std::vector<PlanCandidate> candidates(size_t room) const {
    const PlanProblem of_room = problem(room);
    return plan_candidates(of_room, make_plan(of_room));
  }

  ModelConfig model_;
  PrecisionProfile profile_;
};

std::set<std::string> formats_of(const ExpertPlan& plan) {
  std::set<std::string> formats;
  for (const ExpertCopy& copy : plan.copies) formats.insert(name_of(copy.format));
  return formats;
}

const PlanCandidate* find(const std::vector<PlanCandidate>& candidates, const std::string& name) {
  const auto found = std::ranges::find(candidates, name, &PlanCandidate::name);
  return found == candidates.end() ? nullptr : &*found;
}

TEST_F(PlanCandidates, FitTheBudgetDifferAndHoldAPlainOne) {
  for (const double share : {0.1, 0.5, 0.9}) {
    const auto room = static_cast<size_t>((1.0 - share) * static_cast<double>(bytes_of_all(kInt2)) +
                                          share * static_cast<double>(bytes_of_all(kInt8)));
    const std::vector<PlanCandidate> all = candidates(room);
    EXPECT_EQ(all.front().name, "the plan");
    EXPECT_TRUE(std::ranges::any_of(all, &PlanCandidate::is_plain));
    for (size_t i = 0; i < all.size(); ++i) {
      EXPECT_LE(all[i].plan.ranks[0].tiers.at(MemoryTier::kHost).use.total_bytes(), room) << all[i].name;
      for (size_t j = 0; j < i; ++j) EXPECT_NE(all[i].plan.copies, all[j].plan.copies) << all[i].name << ", " << all[j].name;
    }
  }
}

TEST_F(PlanCandidates, NeighboursMixTheFormatsAroundTheAverage) {
  const std::vector<PlanCandidate> all = candidates((bytes_of_all(kInt3) + bytes_of_all(kInt4)) / 2);
  const std::set<std::string> pair = {name_of(kInt3), name_of(kInt4)};
  ASSERT_NE(find(all, "neighbours"), nullptr);
  EXPECT_EQ(formats_of(find(all, "neighbours")->plan), pair);
  EXPECT_FALSE(find(all, "neighbours")->is_plain);
  ASSERT_NE(find(all, "neighbours by layers"), nullptr);
  EXPECT_TRUE(find(all, "neighbours by layers")->is_plain);
  ASSERT_NE(find(all, "all " + name_of(kInt3)), nullptr);
  EXPECT_TRUE(find(all, "all " + name_of(kInt3))->is_plain);
  EXPECT_EQ(find(all, "all " + name_of(kInt4)), nullptr) << "does not fit";
}

TEST_F(PlanCandidates, HoldTheFormatThatJustFits) {
  const std::vector<PlanCandidate> all = candidates(bytes_of_all(kInt4));
  const auto uniform = std::ranges::find_if(
      all, [&](const PlanCandidate& c) { return formats_of(c.plan) == std::set<std::string>{name_of(kInt4)}; });
  ASSERT_NE(uniform, all.end());
  EXPECT_TRUE(uniform->is_plain);
}

TEST_F(PlanCandidates, ReachUnroundedAboveTheLastFormat) {
  const std::vector<PlanCandidate> all = candidates(bytes_of_all(kInt8) * 5 / 4);
  const std::set<std::string> pair = {name_of(kInt8), "bf16"};
  EXPECT_TRUE(std::ranges::any_of(all, [&](const PlanCandidate& c) { return formats_of(c.plan) == pair; }));
  EXPECT_TRUE(std::ranges::any_of(all, [&](const PlanCandidate& c) { return c.is_plain && formats_of(c.plan) == pair; }));
}

TEST_F(PlanCandidates, ShrinkageDrawsLossesOfALayerTogetherAndKeepsTheirSumAndOrder) {
  const std::vector<double> measured = expert_losses(profile_, kInt3);
  double last_spread = HUGE_VAL;
  for (const double shrinkage : {0.0, 0.25, 0.5, 1.0}) {
    PrecisionProfile drawn = profile_;
    drawn.shrinkage = shrinkage;
    const std::vector<double> losses = expert_losses(drawn, kInt3);
    EXPECT_NEAR(std::accumulate(losses.begin(), losses.end(), 0.0), profile_.uniform_loss[1], 1e-9);
    const auto layer = std::span(losses).first(static_cast<size_t>(profile_.num_experts()));
    const auto [low, high] = std::ranges::minmax(layer);
    EXPECT_LT(high / low, last_spread);
    last_spread = high / low;
    for (size_t i = 1; i < layer.size(); ++i) {
      if (measured[i] <= measured[i - 1]) continue;
      EXPECT_GE(layer[i], layer[i - 1] - 1e-15);
    }
  }
  EXPECT_NEAR(last_spread, 1.0, 1e-9);
}

}  // namespace
}  // namespace skipper
