#include "planning/shadow_copies.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "planning/analytic_profile.h"
#include "planning/plan_problem.h"

namespace skipper {
namespace {

using testing::HasSubstr;

const WeightFormat kInt2{WeightKind::kInt2Asymmetric, 32}, kInt3{WeightKind::kInt3Asymmetric, 32};
const WeightFormat kInt4{WeightKind::kInt4Asymmetric, 32};

class ShadowCopies : public testing::Test {
 protected:
  // Enough for all experts unrounded, and `more`.
  PlanRequest request(size_t num_ranks, size_t more) const {
    PlanRequest asked{.model = model_,
                      .profile = profile_,
                      .settings = {.limits = {.max_tokens = 128, .max_logit_rows = 16}, .kv_cache = {.num_blocks = 64}},
                      .memory = std::vector<size_t>(num_ranks, 0)};
    const size_t fixed = problem_of(asked).ranks[0].tiers.at(MemoryTier::kHost).use.fixed_bytes();
    const size_t all = num_experts() * expert_bytes_in(model_, {}, ComputePlace::kHost);
    asked.memory.assign(num_ranks, fixed + all + more);
    return asked;
  }
  size_t num_experts() const { return static_cast<size_t>(model_.num_moe_layers() * model_.moe.num_experts); }
  size_t bytes_of(const WeightFormat& format) const { return expert_bytes_in(model_, format, ComputePlace::kHost); }

  const ModelConfig model_ = load_model_config(SKIPPER_SOURCE_DIR "/models/demo");
  PrecisionProfile profile_ = analytic_profile(model_, analytic_formats());
};

std::vector<ExpertCopy> shadows_on(const ExpertPlan& plan, int rank) {
  std::vector<ExpertCopy> shadows;
  for (const ExpertCopy& copy : plan.copies) {
    if (copy.rank == rank && copy.role == CopyRole::kShadow) shadows.push_back(copy);
  }
  return shadows;
}

TEST_F(ShadowCopies, OfAllExpertsOfOtherRanksGoWhereThereIsRoom) {
  const PlanRequest asked = request(3, 0);
  ExpertPlan plan = plan_for(asked);
  const std::vector<int32_t> owners = owners_of(plan);
  add_shadows(plan, asked, {kInt3});
  EXPECT_EQ(owners_of(plan), owners);
  for (int rank = 0; rank < 3; ++rank) {
    const auto owned = static_cast<size_t>(std::ranges::count(owners, rank));
    EXPECT_EQ(shadows_on(plan, rank).size(), num_experts() - owned);
    const TierBudget& host = plan.ranks[static_cast<size_t>(rank)].tiers.at(MemoryTier::kHost);
    EXPECT_EQ(host.budget_bytes, asked.memory[0]);
    EXPECT_EQ(host.use.experts.at("int3a-g32"), shadows_on(plan, rank).size() * bytes_of(kInt3));
  }
}

TEST_F(ShadowCopies, OfTheMostUsedExpertsComeFirst) {
  // Few tokens use the first half of each layer.
  for (LayerSensitivity& layer : profile_.layers) {
    for (size_t expert = 0; expert < layer.experts.size() / 2; ++expert) {
      for (auto& phases : layer.experts[expert].use) phases.fill(0.0);
    }
  }
  const ShadowRequest shadows{kInt4, {10 * bytes_of(kInt4) + 17, 0}};
  const PlanRequest asked = without_shadow_memory(request(2, 0), shadows);
  ExpertPlan plan = plan_for(asked);
  add_shadows(plan, asked, shadows);
  EXPECT_EQ(shadows_on(plan, 0).size(), 10u);
  EXPECT_EQ(shadows_on(plan, 1).size(), 0u);
  for (const ExpertCopy& copy : shadows_on(plan, 0)) EXPECT_GE(copy.id.expert, model_.moe.num_experts / 2);
}

TEST_F(ShadowCopies, HaveMemoryOfTheirOwn) {
  const PlanRequest whole = request(2, 0);
  const ShadowRequest shadows{kInt2, {2'000'000, 1'000'000}};
  const PlanRequest rest = without_shadow_memory(whole, shadows);
  ExpertPlan plan = plan_for(rest);
  add_shadows(plan, rest, shadows);
  for (size_t rank = 0; rank < 2; ++rank) {
    const TierBudget& host = plan.ranks[rank].tiers.at(MemoryTier::kHost);
    EXPECT_EQ(host.budget_bytes, whole.memory[rank]);
    EXPECT_LE(host.use.total_bytes(), host.budget_bytes);
    const size_t taken = shadows_on(plan, static_cast<int>(rank)).size() * bytes_of(kInt2);
    EXPECT_LE(taken, shadows.memory[rank]);
    EXPECT_GT(taken + bytes_of(kInt2), shadows.memory[rank]);
  }
  try {
    without_shadow_memory(whole, {kInt2, {1, whole.memory[1]}});
    ADD_FAILURE() << "nothing was thrown";
  } catch (const ResourceExhausted& error) {
    EXPECT_THAT(error.what(), HasSubstr("rank 1 has"));
  }
}

TEST_F(ShadowCopies, ComeBackFromTheFile) {
  const PlanRequest asked = request(2, 0);
  ExpertPlan plan = plan_for(asked);
  add_shadows(plan, asked, {kInt3});
  EXPECT_EQ(parse_expert_plan(to_json(plan), "plan.json", plan.subject), plan);
}

TEST_F(ShadowCopies, AreNoneOnOneRank) {
  const PlanRequest asked = request(1, 9'000'000);
  ExpertPlan plan = plan_for(asked);
  const ExpertPlan before = plan;
  add_shadows(plan, asked, {kInt3});
  EXPECT_EQ(plan, before);
}

TEST(RelativeError, RisesAsBitsFallAndIsNeverMoreThanTheWholeAnswer) {
  EXPECT_EQ(relative_error({}), 0.0);
  EXPECT_LT(relative_error(kInt4), 0.05);
  EXPECT_LT(2 * relative_error(kInt4), relative_error(kInt3));
  EXPECT_LT(2 * relative_error(kInt3), relative_error(kInt2));
  EXPECT_LE(relative_error(kInt2), 1.0);
}

}  // namespace
}  // namespace skipper
