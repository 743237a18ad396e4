#include "planning/replica_placement.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <random>
#include <set>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json_fields.h"

namespace skipper {
namespace {

using nlohmann::json;
using testing::HasSubstr;

constexpr int64_t kBytes = 100;

std::vector<std::vector<int32_t>> experts_of(const ReplicaPlacement& placement) {
  std::vector<std::vector<int32_t>> ranks;
  for (const auto& rank : placement.ranks) {
    ranks.emplace_back();
    for (const ReplicaCopy& copy : rank) ranks.back().push_back(copy.expert);
  }
  return ranks;
}

std::vector<ReplicaExpert> equal_experts(const std::vector<double>& loads) {
  std::vector<ReplicaExpert> experts;
  for (const double load : loads) experts.push_back({.load = load, .bytes = kBytes});
  return experts;
}

std::vector<ReplicaExpert> random_experts(std::mt19937& random, int count) {
  std::lognormal_distribution<double> load(0.0, 1.0);
  std::uniform_int_distribution<int64_t> bytes(20, 100);
  std::vector<ReplicaExpert> experts;
  for (int i = 0; i < count; ++i) experts.push_back({.load = load(random), .bytes = bytes(random), .shadow_bytes = 15});
  return experts;
}

// Every expert has one copy that is no shadow, copies share its load, all fit, and none is twice on a rank.
void expect_valid(const ReplicaProblem& problem, const ReplicaPlacement& placement) {
  ASSERT_EQ(placement.ranks.size(), problem.rank_bytes.size());
  std::vector<double> loads(problem.experts.size());
  std::vector<int> full_copies(problem.experts.size());
  for (size_t rank = 0; rank < placement.ranks.size(); ++rank) {
    int64_t bytes = 0;
    std::set<int32_t> seen;
    for (const ReplicaCopy& copy : placement.ranks[rank]) {
      const auto e = static_cast<size_t>(copy.expert);
      bytes += copy.is_shadow ? problem.experts[e].shadow_bytes : problem.experts[e].bytes;
      loads[e] += copy.load;
      full_copies[e] += copy.is_shadow ? 0 : 1;
      EXPECT_TRUE(seen.insert(copy.expert).second) << "expert " << e << " twice on rank " << rank;
    }
    EXPECT_LE(bytes, problem.rank_bytes[rank]);
  }
  for (size_t e = 0; e < loads.size(); ++e) {
    EXPECT_NEAR(loads[e], problem.experts[e].load, 1e-9);
    EXPECT_GE(full_copies[e], 1);
  }
}

TEST(ReplicaPlacement, DoesWhatEplbDoesWithEqualExpertsThatFillTheRanks) {
  const json cases = read_json_file(SKIPPER_SOURCE_DIR "/tests/planning/fixtures/replicas.json");
  ASSERT_GT(cases.size(), 10u);
  for (const json& one : cases) {
    const auto experts = equal_experts(one["loads"].get<std::vector<double>>());
    const int num_gpus = one["num_gpus"].get<int>();
    const std::vector<int64_t> rank_bytes(static_cast<size_t>(num_gpus), one["num_replicas"].get<int>() / num_gpus * kBytes);
    const ReplicaProblem problem{.experts = experts,
                                 .rank_bytes = rank_bytes,
                                 .num_nodes = one["num_nodes"].get<int>(),
                                 .num_groups = one["num_groups"].get<int>(),
                                 .copies = SameKind::kTogether};
    EXPECT_EQ(experts_of(place_replicas(problem)), one["expected"].get<std::vector<std::vector<int32_t>>>());
  }
}

// The example of EPLB's README, as printed there.
TEST(ReplicaPlacement, DoesTheExampleOfEplbsReadme) {
  const auto experts = equal_experts({90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86});
  const std::vector<int64_t> rank_bytes(8, 2 * kBytes);
  const ReplicaPlacement placement = place_replicas(
      {.experts = experts, .rank_bytes = rank_bytes, .num_nodes = 2, .num_groups = 4, .copies = SameKind::kTogether});
  const std::vector<std::vector<int32_t>> expected{{5, 6}, {5, 7}, {8, 4}, {3, 4}, {10, 9}, {10, 2}, {0, 1}, {11, 1}};
  EXPECT_EQ(experts_of(placement), expected);
}

TEST(ReplicaPlacement, PlacesExpertsOfUnequalSizesWithinUnequalRanks) {
  std::mt19937 random(1);
  for (int round = 0; round < 60; ++round) {
    const auto experts = random_experts(random, 1 + round);
    int64_t total = 0;
    for (const ReplicaExpert& expert : experts) total += expert.bytes;
    const int64_t part = total / 4 + 100 + round;
    const std::vector<int64_t> rank_bytes{part, part * 2, part, part + 57};
    const ReplicaProblem problem{.experts = experts, .rank_bytes = rank_bytes};
    ReplicaPlacement placement = place_replicas(problem);
    expect_valid(problem, placement);
    const double before = placement.max_load();
    even_out(problem, placement);
    expect_valid(problem, placement);
    EXPECT_LE(placement.max_load(), before);
  }
}

TEST(ReplicaPlacement, CopiesWhatIsLoadedMostAndAsAShadowWhereOnlyThatFits) {
  const std::vector<ReplicaExpert> experts{{.load = 8, .bytes = 100, .shadow_bytes = 30}, {.load = 1, .bytes = 100}};
  const std::vector<int64_t> tight{100, 130}, roomy{200, 200}, none{100, 100};
  const auto on = [&](const std::vector<int64_t>& ranks) { return place_replicas({.experts = experts, .rank_bytes = ranks}); };
  EXPECT_THAT(on(none).ranks[0], testing::ElementsAre(ReplicaCopy{0, false, 8.0}));
  const ReplicaPlacement shadowed = on(tight);
  expect_valid({.experts = experts, .rank_bytes = tight}, shadowed);
  EXPECT_DOUBLE_EQ(shadowed.max_load(), 5.0);
  EXPECT_EQ(shadowed.ranks[0].size() + shadowed.ranks[1].size(), 3u);
  EXPECT_DOUBLE_EQ(on(roomy).max_load(), 4.5);
}

TEST(ReplicaPlacement, TakesFewerCopiesWhereSpareBytesAreScattered) {
  // 60 bytes are spare, but 30 on each rank.
  const std::vector<ReplicaExpert> experts{{.load = 9, .bytes = 50}, {.load = 1, .bytes = 70}, {.load = 1, .bytes = 20}};
  const std::vector<int64_t> rank_bytes{100, 100};
  const ReplicaProblem problem{.experts = experts, .rank_bytes = rank_bytes};
  expect_valid(problem, place_replicas(problem));
}

TEST(ReplicaPlacement, HoldsNoExpertsAndExpertsOfNoBytes) {
  const std::vector<int64_t> rank_bytes{0, 0};
  EXPECT_EQ(place_replicas({.experts = {}, .rank_bytes = rank_bytes}).max_load(), 0.0);
  const std::vector<ReplicaExpert> empty{{.load = 1}, {.load = 2}, {.load = 3}};
  const ReplicaProblem problem{.experts = empty, .rank_bytes = rank_bytes};
  ReplicaPlacement placement = place_replicas(problem);
  expect_valid(problem, placement);
  even_out(problem, placement);
  EXPECT_DOUBLE_EQ(placement.max_load(), 3.0);
}

TEST(ReplicaPlacement, SaysHowManyBytesFitNowhere) {
  const auto experts = equal_experts({1, 2, 3});
  const std::vector<int64_t> rank_bytes{150, 150};
  try {
    place_replicas({.experts = experts, .rank_bytes = rank_bytes});
    FAIL() << "three experts fit in the room of two";
  } catch (const ResourceExhausted& error) {
    EXPECT_THAT(error.what(), HasSubstr("1 of 3 experts, 100 bytes"));
  }
}

TEST(ReplicaPlacement, EvensOutWhatPackingByLoadLeaves) {
  // By load: {5, 3, 3} and {4, 3} hold 11 and 7 … with three slots each the best is 9 and 9.
  const auto experts = equal_experts({5, 4, 3, 3, 3, 0});
  const std::vector<int64_t> rank_bytes(2, 3 * kBytes);
  const ReplicaProblem problem{.experts = experts, .rank_bytes = rank_bytes};
  ReplicaPlacement placement = place_replicas(problem);
  even_out(problem, placement);
  expect_valid(problem, placement);
  EXPECT_DOUBLE_EQ(placement.max_load(), 9.0);
}

}  // namespace
}  // namespace skipper
