#include "planning/plan_request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "base/error.h"
#include "planning/analytic_profile.h"
#include "planning/memory_size.h"

namespace skipper {
namespace {

using testing::HasSubstr;

class PlanRequests : public testing::Test {
 protected:
  PlanRequest request(const std::vector<size_t>& memory) const {
    return {.model = model_,
            .profile = profile_,
            .settings = {.limits = {.max_tokens = 128, .max_logit_rows = 16}, .kv_cache = {.num_blocks = 64}},
            .memory = memory};
  }

  size_t fixed_bytes(const PlanRequest& asked) const {
    return problem_of(asked).ranks[0].tiers.at(MemoryTier::kHost).use.fixed_bytes();
  }

  // So much memory for experts on each rank; all of them take 28 MB unrounded.
  PlanRequest with_room(const std::vector<size_t>& room) const {
    PlanRequest asked = request(room);
    const size_t fixed = fixed_bytes(asked);
    for (size_t& memory : asked.memory) memory += fixed;
    return asked;
  }

  const ModelConfig model_ = load_model_config(SKIPPER_SOURCE_DIR "/models/demo");
  const PrecisionProfile profile_ = analytic_profile(model_, analytic_formats());
};

std::string refusal_of(const PlanRequest& request) {
  try {
    plan_for(request);
  } catch (const ResourceExhausted& error) {
    return error.what();
  }
  return "";
}

TEST_F(PlanRequests, FillMemoriesAndSayHowManyTokensTheCacheHolds) {
  PlanRequest asked = request({130'000'000, 128'000'000});
  const ExpertPlan plan = plan_for(asked);
  EXPECT_EQ(plan.subject.world_size, 2);
  EXPECT_EQ(plan.origin.kv_tokens_per_rank, 64 * asked.settings.kv_cache.block_size);
  EXPECT_EQ(plan.origin.target, "quality");
  for (size_t rank = 0; rank < 2; ++rank) {
    const TierBudget& host = plan.ranks[rank].tiers.at(MemoryTier::kHost);
    EXPECT_EQ(host.budget_bytes, asked.memory[rank]);
    EXPECT_LE(host.use.total_bytes(), host.budget_bytes);
  }
  asked.max_loss = 1e-3;
  EXPECT_EQ(plan_for(asked).origin.target, "max_loss");
}

TEST_F(PlanRequests, FitFromTheLeastMemoryOnAndTakeNoMoreThanTheMost) {
  for (const size_t num_ranks : {1, 2, 3}) {
    const MemoryRange range = memory_range_of(request(std::vector<size_t>(num_ranks, 0)));
    EXPECT_THAT(refusal_of(request(std::vector<size_t>(num_ranks, range.least - 1))), HasSubstr("short by")) << num_ranks;
    EXPECT_GT(plan_for(request(std::vector<size_t>(num_ranks, range.least))).predicted.loss, 0.0) << num_ranks;
    EXPECT_EQ(plan_for(request(std::vector<size_t>(num_ranks, range.most))).predicted.loss, 0.0) << num_ranks;
    EXPECT_LT(range.least, range.most);
  }
  const MemoryRange alone = memory_range_of(request({0}));
  EXPECT_GT(plan_for(request({alone.most - 1})).predicted.loss, 0.0);
}

TEST_F(PlanRequests, KeepOwnersOfAnotherPlanWhileFormatsChange) {
  const ExpertPlan rich = plan_for(with_room({28'000'000, 9'000'000, 9'000'000}));
  EXPECT_NE(owners_of(plan_for(with_room({9'000'000, 9'000'000, 9'000'000}))), owners_of(rich));
  PlanRequest asked = with_room({9'000'000, 3'000'000, 3'000'000});
  asked.owners = owners_of(rich);
  const ExpertPlan poor = plan_for(asked);
  EXPECT_EQ(owners_of(poor), owners_of(rich));
  EXPECT_LT(poor.predicted.expert_bits, rich.predicted.expert_bits);
  ASSERT_EQ(poor.copies.size(), rich.copies.size());
  for (size_t i = 0; i < poor.copies.size(); ++i) EXPECT_EQ(poor.copies[i].slot, rich.copies[i].slot);
}

TEST_F(PlanRequests, NameTheRankWhoseOwnExpertsDoNotFit) {
  PlanRequest asked = request({200'000'000, 200'000'000});
  // Everything on rank 1, whose memory holds half of it.
  asked.owners.assign(static_cast<size_t>(model_.num_moe_layers() * model_.moe.num_experts), 1);
  const size_t fixed = fixed_bytes(asked);
  const size_t least = asked.owners.size() * expert_bytes_in(model_, {WeightKind::kInt2Asymmetric, 32}, ComputePlace::kHost);
  asked.memory[1] = fixed + least / 2;
  EXPECT_THAT(refusal_of(asked), HasSubstr("short by " + memory_text(least - least / 2) + " of host memory on rank 1"));
  asked.memory[1] = fixed + least;
  EXPECT_EQ(refusal_of(asked), "");
}

// "... give every rank 103.4 MB; ...", rounded to a tenth.
size_t advised_memory(const std::string& line) {
  const std::string before = "give every rank ";
  return static_cast<size_t>((std::stod(line.substr(line.find(before) + before.size())) + 0.1) * 1e6);
}

TEST_F(PlanRequests, AdviseMemoryThatIsReallyEnough) {
  const size_t fixed = fixed_bytes(request({0}));
  for (const size_t memory : {size_t{0}, fixed / 2, fixed, fixed + 1'000'000}) {
    PlanRequest asked = request({memory});
    const std::string line = refusal_of(asked);
    ASSERT_THAT(line, HasSubstr("give every rank"));
    asked.memory[0] = advised_memory(line);
    EXPECT_EQ(refusal_of(asked), "") << line;
  }
}

TEST_F(PlanRequests, TakeTheDiskForWhatFitsNowhereElse) {
  PlanRequest asked = with_room({3'000'000});
  EXPECT_THAT(refusal_of(asked), HasSubstr("add --disk DIR"));
  asked.disk_bytes = 1'000'000'000;
  const ExpertPlan plan = plan_for(asked);
  EXPECT_TRUE(std::ranges::any_of(plan.copies, [](const ExpertCopy& copy) { return copy.tier == MemoryTier::kDisk; }));
}

}  // namespace
}  // namespace skipper
