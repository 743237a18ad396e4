#include "planning/plan_solver.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <random>

#include "base/error.h"
#include "planning/analytic_profile.h"
#include "planning/plan_report.h"

namespace skipper {
namespace {

using testing::AllOf;
using testing::HasSubstr;

const std::vector<WeightFormat> kFormats = {{WeightKind::kInt8, 64},           {WeightKind::kInt4, 32},
                                            {WeightKind::kInt4Asymmetric, 32}, {WeightKind::kInt3Asymmetric, 32},
                                            {WeightKind::kInt2Asymmetric, 32}};

ModelConfig demo() { return load_model_config(SKIPPER_SOURCE_DIR "/models/demo"); }

// Use and errors with heavy tails, as measured ones have.
PrecisionProfile random_profile(const ModelConfig& model, uint32_t seed) {
  std::mt19937 random(seed);
  std::lognormal_distribution<double> use(-3.0, 0.8), error(0.0, 0.8);
  PrecisionProfile profile = analytic_profile(model, kFormats);
  profile.basis = ProfileBasis::kMeasured;
  for (LayerSensitivity& layer : profile.layers) {
    for (ExpertSensitivity& expert : layer.experts) {
      const double used = std::min(1.0, use(random)), factor = error(random);
      expert.use[0] = {used, used};
      for (double& value : expert.error) value *= factor;
    }
  }
  for (const WeightFormat& format : profile.formats) profile.uniform_loss.push_back(rounding_variance(format));
  return profile;
}

size_t expert_bytes(const ModelConfig& model, const WeightFormat& format) {
  return expert_bytes_in(model, format, ComputePlace::kHost);
}

size_t num_experts(const ModelConfig& model) {
  return static_cast<size_t>(model.num_moe_layers() * model.moe.num_experts);
}

// Ranks on CPUs with `room` bytes for experts each, beside 1000 that hold none.
std::vector<RankPlanMemory> cpu_ranks(const std::vector<size_t>& rooms) {
  std::vector<RankPlanMemory> ranks;
  for (const size_t room : rooms) {
    RankPlanMemory& rank = ranks.emplace_back();
    rank.tiers[MemoryTier::kHost].budget_bytes = room + 1000;
    rank.tiers[MemoryTier::kHost].use.dense_weights = 1000;
  }
  return ranks;
}

std::vector<RankPlanMemory> gpu_ranks(int count, size_t device, size_t host, size_t disk) {
  std::vector<RankPlanMemory> ranks(static_cast<size_t>(count));
  for (RankPlanMemory& rank : ranks) {
    rank.tiers[MemoryTier::kDevice].budget_bytes = device;
    rank.tiers[MemoryTier::kHost].budget_bytes = host;
    if (disk > 0) rank.tiers[MemoryTier::kDisk].budget_bytes = disk;
  }
  return ranks;
}

double loss_of(const ExpertPlan& plan, const PrecisionProfile& profile) {
  double loss = 0.0;
  for (const ExpertCopy& copy : plan.copies) {
    const auto index = static_cast<size_t>(copy.id.layer * profile.num_experts() + copy.id.expert);
    loss += expert_losses(profile, copy.format)[index];
  }
  return loss;
}

TEST(PlanSolver, GivesOneRankAProvenPlan) {
  const ModelConfig model = demo();
  const PrecisionProfile profile = random_profile(model, 1);
  const size_t room = num_experts(model) * expert_bytes(model, {WeightKind::kInt4, 32});
  const PlanProblem problem{.model = model, .profile = profile, .ranks = cpu_ranks({room})};
  const ExpertPlan plan = make_plan(problem);
  EXPECT_EQ(plan.certificate.method, "exact");
  EXPECT_LT(plan.certificate.gap, 1e-9);
  EXPECT_NEAR(plan.predicted.loss, loss_of(plan, profile), 1e-12);
  EXPECT_LT(plan.predicted.loss, uniform_loss_of(problem, {WeightKind::kInt4, 32}));
  EXPECT_LE(plan.ranks[0].tiers.at(MemoryTier::kHost).use.expert_bytes(), room);
  EXPECT_EQ(plan.copies.size(), num_experts(model));
}

TEST(PlanSolver, LosesLessWithMoreMemoryAndNothingWithEnough) {
  const ModelConfig model = demo();
  const PrecisionProfile profile = random_profile(model, 2);
  const size_t full = num_experts(model) * expert_bytes(model, {});
  double loss = 1e9;
  for (const double share : {0.2, 0.25, 0.3, 0.4, 0.6, 0.9, 1.0}) {
    const auto room = static_cast<size_t>(share * static_cast<double>(full));
    const ExpertPlan plan = make_plan({.model = model, .profile = profile, .ranks = cpu_ranks({room})});
    EXPECT_LT(plan.predicted.loss, loss) << share;
    loss = plan.predicted.loss;
  }
  EXPECT_EQ(loss, 0.0);
}

TEST(PlanSolver, SpreadsExpertsOverRanksOfUnequalMemory) {
  const ModelConfig model = demo();
  const PrecisionProfile profile = random_profile(model, 3);
  const size_t room = num_experts(model) * expert_bytes(model, {WeightKind::kInt4, 32}) / 4;
  const ExpertPlan plan =
      make_plan({.model = model, .profile = profile, .ranks = cpu_ranks({room, room * 2, room / 2, room / 2})});
  // The bound is that of one memory of the same size.
  EXPECT_LT(plan.certificate.gap, 0.1);
  EXPECT_GE(plan.predicted.loss, plan.certificate.loss_bound);
  for (int rank = 0; rank < 4; ++rank) {
    const TierBudget& budget = plan.ranks[static_cast<size_t>(rank)].tiers.at(MemoryTier::kHost);
    EXPECT_LE(budget.use.total_bytes(), budget.budget_bytes);
    for (const auto& layer : plan.copies_of(rank)) EXPECT_FALSE(layer.empty()) << "rank " << rank << " idles in a layer";
  }
}

TEST(PlanSolver, PutsWhatIsUsedMostOnTheDevice) {
  const ModelConfig model = demo();
  const PrecisionProfile profile = random_profile(model, 4);
  const size_t full = num_experts(model) * expert_bytes(model, {});
  const PlanProblem problem{.model = model, .profile = profile, .ranks = gpu_ranks(1, full / 8, full, 0)};
  const ExpertPlan plan = make_plan(problem);
  double device_use = 0.0, host_use = 0.0;
  int on_device = 0, on_host = 0;
  for (const ExpertCopy& copy : plan.copies) {
    const bool runs_on_device = copy.runs_on == ComputePlace::kDevice;
    EXPECT_TRUE(runs_on_device || copy.tier == MemoryTier::kHost);
    EXPECT_FALSE(runs_on_device && copy.format.is_asymmetric()) << "GPUs multiply with no such format";
    (copy.tier == MemoryTier::kDevice ? device_use : host_use) += profile.decode_use_of(copy.id);
    ++(copy.tier == MemoryTier::kDevice ? on_device : on_host);
  }
  ASSERT_GT(on_device, 0);
  ASSERT_GT(on_host, 0);
  EXPECT_GT(device_use / on_device, host_use / on_host);
}

TEST(PlanSolver, KeepsToALossWhenItIsAskedForSpeed) {
  const ModelConfig model = demo();
  const PrecisionProfile profile = random_profile(model, 5);
  const size_t full = num_experts(model) * expert_bytes(model, {});
  PlanProblem problem{.model = model, .profile = profile, .ranks = cpu_ranks({full / 2, full / 2})};
  problem.target = PlanTarget::kThroughput;
  double seconds = 1e9;
  for (const double max_loss : {1e-4, 1e-3, 1e-2}) {
    problem.max_loss = max_loss;
    const ExpertPlan plan = make_plan(problem);
    EXPECT_LE(plan.predicted.loss, max_loss * (1 + 1e-9));
    EXPECT_LT(plan.predicted.seconds_per_token, seconds);
    EXPECT_LT(plan.certificate.gap, 0.05);
    seconds = plan.predicted.seconds_per_token;
  }
  problem.max_loss = 1e-9;
  EXPECT_EQ(make_plan(problem).predicted.loss, 0.0);
  problem.ranks = cpu_ranks({full / 4, full / 4});
  EXPECT_THROW(make_plan(problem), ResourceExhausted);
}

TEST(PlanSolver, ReadsFromDiskOnlyWhatFitsNowhereElse) {
  const ModelConfig model = demo();
  const PrecisionProfile profile = random_profile(model, 6);
  const size_t full = num_experts(model) * expert_bytes(model, {});
  std::vector<RankPlanMemory> ranks = cpu_ranks({full / 2});
  ranks[0].tiers[MemoryTier::kDisk].budget_bytes = full;
  const ExpertPlan plan = make_plan({.model = model, .profile = profile, .ranks = ranks});
  EXPECT_EQ(plan.predicted.loss, 0.0);
  size_t in_memory = plan.ranks[0].tiers.at(MemoryTier::kHost).use.expert_bytes();
  EXPECT_GT(in_memory, full / 2 - expert_bytes(model, {}));
}

TEST(PlanSolver, PredictsSpeedByTheRatesOfFormatsAndLinks) {
  const ModelConfig model = demo();
  const PrecisionProfile profile = random_profile(model, 8);
  const size_t full = num_experts(model) * expert_bytes(model, {});
  PlanProblem problem{.model = model, .profile = profile, .ranks = cpu_ranks({full, full}), .dense_bytes = 1'000'000};
  problem.rates = {.host = 1e9};
  const double by_memory = make_plan(problem).predicted.seconds_per_token;
  problem.rates.products["bf16"] = 5e8;
  const double by_products = make_plan(problem).predicted.seconds_per_token;
  EXPECT_NEAR(by_products, 2.0 * by_memory, 1e-9 * by_memory) << "nothing is rounded, and half as fast";
  problem.rates.exchange_seconds = 1e-3;
  EXPECT_NEAR(make_plan(problem).predicted.seconds_per_token, by_products + 2e-3 * model.num_moe_layers(), 1e-12);
  problem.ranks = cpu_ranks({full});
  EXPECT_LT(make_plan(problem).predicted.seconds_per_token, 1e-3 * model.num_moe_layers()) << "one rank exchanges nothing";
}

TEST(PlanSolver, NeverLosesMoreThanAUniformFormatThatFits) {
  const ModelConfig model = demo();
  for (uint32_t seed = 10; seed < 20; ++seed) {
    const PrecisionProfile profile = random_profile(model, seed);
    for (const WeightFormat& format : kFormats) {
      const size_t room = num_experts(model) * expert_bytes(model, format);
      const PlanProblem problem{.model = model, .profile = profile, .ranks = cpu_ranks({room})};
      EXPECT_LE(make_plan(problem).predicted.loss, uniform_loss_of(problem, format) * (1 + 1e-12));
    }
  }
}

TEST(PlanSolver, FindsHowMuchIsShortAndAcceptsWhatIsEnough) {
  const ModelConfig model = demo();
  const PrecisionProfile profile = random_profile(model, 7);
  const size_t least = num_experts(model) * expert_bytes(model, {WeightKind::kInt2Asymmetric, 32});
  PlanProblem problem{.model = model, .profile = profile, .ranks = cpu_ranks({least / 2 - 5000, least / 2 - 5000})};
  const auto shortage = find_shortage(problem);
  ASSERT_TRUE(shortage);
  EXPECT_EQ(shortage->missing_bytes, 5000u);
  EXPECT_THROW(make_plan(problem), ResourceExhausted);
  problem.ranks = cpu_ranks({least / 2, least / 2});
  EXPECT_FALSE(find_shortage(problem));
  EXPECT_EQ(make_plan(problem).copies.size(), num_experts(model));
  problem.ranks[1].tiers[MemoryTier::kHost].budget_bytes = 999;
  EXPECT_EQ(find_shortage(problem)->rank, 1);
  EXPECT_EQ(find_shortage(problem)->missing_bytes, 1u);
}

TEST(PlanSolver, RaisesFirstLayersWhereNothingElseIsKnown) {
  const ModelConfig model = demo();
  const PrecisionProfile profile = analytic_profile(model, kFormats);
  const size_t room = num_experts(model) * expert_bytes(model, {WeightKind::kInt4Asymmetric, 32}) * 5 / 4;
  const ExpertPlan plan = make_plan({.model = model, .profile = profile, .ranks = cpu_ranks({room})});
  EXPECT_EQ(plan.origin.profile, "analytic");
  double first = 0.0, last = 0.0;
  for (const ExpertCopy& copy : plan.copies) {
    if (copy.id.layer == 0) first += copy.format.bits_per_weight();
    if (copy.id.layer == plan.subject.num_moe_layers - 1) last += copy.format.bits_per_weight();
  }
  EXPECT_GE(first, last);
}

TEST(PlanReport, ShowsMemoryByKindAndTheCertificate) {
  const ModelConfig model = demo();
  const PrecisionProfile profile = random_profile(model, 8);
  const PlanProblem problem{.model = model, .profile = profile, .ranks = cpu_ranks({9'000'000, 9'000'000})};
  const std::string report = plan_report(make_plan(problem), problem);
  EXPECT_THAT(report, AllOf(HasSubstr("   1 host"), HasSubstr("experts by format:"), HasSubstr("nats of KL a token"),
                            HasSubstr("certificate:"), HasSubstr("fits\n")));
}

TEST(PlanReport, SaysInOneLineWhatWouldHelp) {
  const std::string line = shortage_line({.rank = 3, .tier = MemoryTier::kDevice, .missing_bytes = 1'500'000'000},
                                         {.enough_memory = 81'500'000'000, .enough_ranks = 9, .enough_kv_blocks = 512});
  EXPECT_THAT(line, AllOf(HasSubstr("short by 1.50 GB of device memory on rank 3: do one of"), HasSubstr("81.50 GB"),
                          HasSubstr("use 9 ranks"), HasSubstr("kv_blocks_per_rank to 512"), HasSubstr("--disk")));
  EXPECT_EQ(line.find('\n'), std::string::npos);
}

}  // namespace
}  // namespace skipper
