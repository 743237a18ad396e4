#include "audit/routing_audit.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <random>
#include <string>

#include "audit/audit_lines.h"
#include "audit/audit_reader.h"
#include "audit/replay.h"
#include "base/error.h"
#include "expert_parallel/expert_skipping.h"

namespace skipper {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int kNumLayers = 3;
constexpr int kNumExperts = 8;
constexpr int64_t kTopK = 4;

LevelTable two_levels() {
  LevelTable levels = unskipped_levels(kNumLayers);
  levels.levels.push_back(levels.levels[0]);
  levels.levels[1].tau = {0.07f, 0.1f};
  return levels;
}

constexpr PlacementShape kPlacedShape{.num_moe_layers = kNumLayers, .num_experts = kNumExperts, .world_size = 2};

// Even experts at rank 0, odd ones at rank 1, in every layer.
ExpertPlacement dealt_out() {
  std::vector<ExpertHome> homes;
  for (int32_t i = 0; i < kNumLayers * kNumExperts; ++i) homes.push_back({.rank = i % 2, .slot = i % kNumExperts / 2});
  return ExpertPlacement::from_homes(kPlacedShape, std::move(homes));
}

// Rank 1 has shadows of half of the experts of rank 0, rank 0 has one that rank 1 never uses.
ExpertPlacement dealt_out_with_shadows() {
  std::vector<ShadowExpert> shadows{{.id = {0, 1}, .rank = 0, .relative_error = 0.2f}};
  for (int32_t layer = 0; layer < kNumLayers; ++layer) {
    for (const int32_t expert : {0, 4}) shadows.push_back({.id = {layer, expert}, .rank = 1, .relative_error = 0.1f});
  }
  return dealt_out().with_shadows(shadows);
}

// Thresholds at which some trips are made, some pairs run on shadows, and others nowhere.
LevelTable levels_with_shadows() {
  LevelTable levels = two_levels();
  levels.levels[1].tau = {};
  for (auto& tau : levels.levels[1].tau_shadow) tau = {0.0f, 0.03f, 0.03f};
  return levels;
}

// A rank of two that routes at random, skips as the MoE layer does, and is audited.
class AuditedRank {
 public:
  AuditedRank(const std::filesystem::path& file, double rate,
              ExpertPlacement placement = ExpertPlacement::contiguous(kPlacedShape), LevelTable levels = two_levels())
      : levels_(std::move(levels)),
        placement_(std::move(placement)),
        audit_({.file = file, .rate = rate}, header(), levels_, placement_) {}

  static AuditHeader header() {
    return {.model_fingerprint = "abc",
            .num_moe_layers = kNumLayers,
            .num_experts = kNumExperts,
            .rank = 1,
            .node_of_rank = {0, 1},
            .bytes_per_row = 100};
  }

  void step(const RankPlan& plan, uint32_t plan_version = 0) {
    audit_.begin_step(plan, plan_version);
    TokenPolicies policies = TokenPolicies::defaults(plan.num_tokens());
    for (int64_t t = 0; t < plan.num_tokens(); ++t) {
      policies.token_class.data<uint8_t>()[t] = static_cast<uint8_t>(generator_() % kNumTokenClasses);
      policies.phase.data<uint8_t>()[t] = static_cast<uint8_t>(generator_() % kNumTokenPhases);
      policies.level.data<uint8_t>()[t] = static_cast<uint8_t>(generator_() % 2);
    }
    for (int layer = 0; layer < kNumLayers; ++layer) run_layer(layer, policies);
  }

  void set_levels(LevelTable levels) { levels_ = std::move(levels); }

 private:
  void run_layer(int layer, const TokenPolicies& policies) {
    const int64_t num_tokens = policies.num_tokens();
    Routing routed{.expert_ids = Tensor::empty({num_tokens, kTopK}, DType::kI32),
                   .expert_weights = Tensor::empty({num_tokens, kTopK}, DType::kF32)};
    for (int64_t t = 0; t < num_tokens; ++t) route_token(t, routed);
    Tensor kept_ids = Tensor::empty({num_tokens, kTopK}, DType::kI32);
    BatchRules rules(levels_, layer, policies);
    for (int64_t t = 0; t < num_tokens; ++t) {
      apply_token_rules(pairs_of(routed, t), rules.of(t),
                        {placement_.homes_seen_from(header().rank, layer), topology_, header().rank,
                         placement_.shadow_errors(header().rank, layer)},
                        {kept_ids.row<int32_t>(t), static_cast<size_t>(kTopK)});
    }
    audit_.observe({.layer = layer + 10, .moe_layer = layer}, policies, routed,
                   {.expert_ids = kept_ids, .expert_weights = routed.expert_weights});
  }

  void route_token(int64_t token, Routing& routed) {
    float sum = 0.0f;
    float* weights = routed.expert_weights.row<float>(token);
    for (int64_t j = 0; j < kTopK; ++j) {
      routed.expert_ids.row<int32_t>(token)[j] = static_cast<int32_t>((static_cast<int64_t>(generator_()) + j) % kNumExperts);
      sum += weights[j] = std::uniform_real_distribution<float>(0.01f, 1.0f)(generator_);
    }
    for (int64_t j = 0; j < kTopK; ++j) weights[j] /= sum;
    std::sort(weights, weights + kTopK, std::greater<>());
  }

  std::mt19937 generator_{7};
  LevelTable levels_;
  ExpertPlacement placement_;
  ClusterTopology topology_{header().node_of_rank};
  RoutingAudit audit_;
};

RankPlan plan_of(std::vector<SequenceStep> sequences) {
  RankPlan plan;
  plan.sequences = std::move(sequences);
  return plan;
}

SequenceStep sequence(uint64_t id, int32_t start, int32_t num_tokens) {
  SequenceStep step;
  step.sequence_id = id;
  step.start = start;
  step.num_tokens = num_tokens;
  return step;
}

class RoutingAuditTest : public ::testing::Test {
 protected:
  std::filesystem::path file() const {
    return std::filesystem::path(::testing::TempDir()) /
           (std::string("routing_") + ::testing::UnitTest::GetInstance()->current_test_info()->name() + ".jsonl");
  }
  std::filesystem::path rank_file() const { return audit_path(file(), 1, 2); }

  std::vector<std::string> lines() const {
    std::ifstream input(rank_file());
    std::vector<std::string> result;
    for (std::string line; std::getline(input, line);) result.push_back(line + "\n");
    return result;
  }
  void write(const std::vector<std::string>& lines) const {
    std::ofstream output(rank_file());
    for (const std::string& line : lines) output << line;
  }
  RoutingRecord record_at(size_t line) const {
    return std::get<RoutingRecord>(parse_audit_entry(lines().at(line), AuditedRank::header(), "test"));
  }
  ReplayReport replayed() const {
    AuditReader reader(rank_file());
    return replay(reader);
  }

  // 60 tokens where some experts have shadows.
  void audit_shadows() const {
    AuditedRank rank(file(), 1.0, dealt_out_with_shadows(), levels_with_shadows());
    rank.step(plan_of({sequence(3, 0, 60)}));
  }
  // The line and place of a pair that is logged as run on a shadow.
  std::pair<size_t, size_t> find_shadow(const AuditHeader& header) const {
    for (size_t line = 2; line < lines().size(); ++line) {
      const auto record = std::get<RoutingRecord>(parse_audit_entry(lines()[line], header, "test"));
      const auto found = std::ranges::find(record.on_shadow, true);
      if (found != record.on_shadow.end()) return {line, static_cast<size_t>(found - record.on_shadow.begin())};
    }
    return {0, 0};
  }

  // Two steps of 5 and 1 tokens.
  void audit_a_request() const {
    AuditedRank rank(file(), 1.0);
    rank.step(plan_of({sequence(3, 0, 5)}));
    rank.step(plan_of({sequence(3, 5, 1)}));
  }
};

TEST(AuditSampling, TakesTheShareItIsAskedForOfAnyIds) {
  for (const uint64_t stride : {uint64_t{1}, uint64_t{1024}}) {
    int num_audited = 0;
    for (uint64_t id = 0; id < 20000; ++id) num_audited += is_audited(id * stride, 0.05) ? 1 : 0;
    EXPECT_NEAR(num_audited, 1000, 150) << stride;
  }
}

TEST(AuditSampling, TakesNothingAtZeroAndEverythingAtOne) {
  for (uint64_t id = 0; id < 1000; ++id) {
    EXPECT_FALSE(is_audited(id, 0.0));
    EXPECT_TRUE(is_audited(id, 1.0));
  }
}

TEST(AuditPath, NamesTheRankOnlyAmongSeveral) {
  EXPECT_EQ(audit_path("a.jsonl", 0, 1), "a.jsonl");
  EXPECT_EQ(audit_path("a.jsonl", 2, 3), "a.jsonl.rank2");
}

TEST_F(RoutingAuditTest, WritesALinePerTokenAndLayerWithItsPlaceInTheRequest) {
  {
    AuditedRank rank(file(), 1.0);
    rank.step(plan_of({sequence(3, 7, 2), sequence(9, 0, 1)}));
  }
  ASSERT_EQ(lines().size(), 2u + 3u * kNumLayers);
  EXPECT_THAT(lines()[2], HasSubstr("{\"request\":3,\"position\":7,\"layer\":10,\"moe_layer\":0,\"class\":\""));
  EXPECT_EQ(record_at(3).position, 8);
  EXPECT_EQ(record_at(4).request, 9u);
  EXPECT_EQ(record_at(4).position, 0);
  EXPECT_EQ(record_at(10).moe_layer, 2);
}

TEST_F(RoutingAuditTest, SaysTheVersionOfTheExpertsOfEachStep) {
  {
    AuditedRank rank(file(), 1.0);
    rank.step(plan_of({sequence(3, 0, 1)}), 1);
    rank.step(plan_of({sequence(3, 1, 1)}), 4);
  }
  EXPECT_EQ(record_at(2).plan_version, 1u);
  EXPECT_EQ(record_at(2 + kNumLayers).plan_version, 4u);
  EXPECT_EQ(replayed().num_decisions, 2 * kNumLayers);
}

TEST_F(RoutingAuditTest, LeavesOutRequestsThatAreNotSampled) {
  {
    AuditedRank rank(file(), 0.0);
    rank.step(plan_of({sequence(3, 0, 4)}));
  }
  EXPECT_EQ(lines().size(), 2u);
}

TEST_F(RoutingAuditTest, StepsWithoutTokensLeaveNoLine) {
  {
    AuditedRank rank(file(), 1.0);
    rank.step({});
  }
  EXPECT_EQ(lines().size(), 2u);
  EXPECT_EQ(replayed().num_decisions, 0);
}

TEST_F(RoutingAuditTest, ReplayAgreesWithEveryDecision) {
  audit_a_request();
  const ReplayReport report = replayed();
  EXPECT_EQ(report.num_decisions, 6 * kNumLayers);
  EXPECT_EQ(report.num_pairs, 6 * kNumLayers * kTopK);
  EXPECT_GT(report.num_skipped, 0);
  EXPECT_LT(report.num_skipped, report.num_pairs);
  EXPECT_EQ(report.num_different, 0);
  EXPECT_EQ(report.first_difference, "");
}

TEST_F(RoutingAuditTest, ReplayKnowsTheOwnersThatAPlanHasChosen) {
  LevelTable levels = two_levels();
  for (auto& tau : levels.levels[1].tau_dst) tau = {0.0f, 0.05f, 0.05f};
  {
    AuditedRank rank(file(), 1.0, dealt_out(), levels);
    rank.step(plan_of({sequence(3, 0, 60)}));
  }
  EXPECT_EQ(AuditReader(rank_file()).header().owners.size(), static_cast<size_t>(kNumLayers * kNumExperts));
  EXPECT_EQ(replayed().num_different, 0) << replayed().first_difference;
  std::vector<std::string> edited = lines();
  edited[0] = to_line(AuditedRank::header());
  write(edited);
  EXPECT_GT(replayed().num_different, 10) << "under equal blocks the destination rule decides otherwise";
}

TEST_F(RoutingAuditTest, EqualBlocksNeedNoListOfOwners) {
  audit_a_request();
  EXPECT_EQ(AuditReader(rank_file()).header(), AuditedRank::header());
}

TEST_F(RoutingAuditTest, ReplayTellsShadowsFromTripsAndSkips) {
  audit_shadows();
  const ReplayReport report = replayed();
  EXPECT_EQ(report.num_different, 0) << report.first_difference;
  EXPECT_GT(report.num_on_shadows, 0);
  EXPECT_GT(report.num_skipped, 0) << "an expert without a shadow";
  EXPECT_LT(report.num_on_shadows + report.num_skipped, report.num_pairs);

  const AuditHeader header = AuditReader(rank_file()).header();
  const auto [line, slot] = find_shadow(header);
  ASSERT_GT(line, 0u);
  std::vector<std::string> edited = lines();
  RoutingRecord record = std::get<RoutingRecord>(parse_audit_entry(edited[line], header, "test"));
  record.on_shadow[slot] = false;
  edited[line] = to_line(record);
  write(edited);
  EXPECT_THAT(replayed().first_difference, HasSubstr(" was logged as kept but is on a shadow"));
}

TEST_F(RoutingAuditTest, AWhatIfCountsTheShadowsOfTheFilesOwnRanks) {
  audit_shadows();
  const int64_t num_on_shadows = replayed().num_on_shadows;
  for (const int num_ranks : {2, 1}) {
    AuditReader reader(rank_file());
    const LevelTable levels = levels_with_shadows();
    const WhatIfReport report = decide_otherwise(reader, {.levels = levels, .level = 1, .num_ranks = num_ranks});
    int64_t as_logged = 0, otherwise = 0;
    for (const WhatIfReport::Pairs& pairs : report.pairs) {
      as_logged += pairs.on_shadows_as_logged;
      otherwise += pairs.on_shadows_otherwise;
    }
    EXPECT_EQ(as_logged, num_on_shadows);
    EXPECT_EQ(otherwise > num_on_shadows, num_ranks == 2) << "tokens of level 0 use shadows too";
    EXPECT_EQ(otherwise == 0, num_ranks == 1) << "one rank has all experts";
    const WhatIfReport::Rows& rows = report.rows[static_cast<size_t>(Hop::kNetwork)];
    EXPECT_EQ(rows.as_logged < rows.routed, num_ranks == 2);
  }
}

TEST_F(RoutingAuditTest, ReplayUsesTheTableThatAppliedToEachStep) {
  {
    AuditedRank rank(file(), 1.0);
    rank.step(plan_of({sequence(3, 0, 5)}));
    LevelTable stricter = two_levels();
    stricter.version = 2;
    stricter.levels[1].tau = {0.2f, 0.2f};
    rank.set_levels(stricter);
    rank.step(plan_of({sequence(3, 5, 5)}));
  }
  EXPECT_EQ(lines().size(), 3u + 10u * kNumLayers);
  EXPECT_EQ(replayed().num_different, 0);
}

TEST_F(RoutingAuditTest, ReplayNamesTheFirstDecisionThatWasChanged) {
  audit_a_request();
  std::vector<std::string> edited = lines();
  for (const size_t line : {size_t{4}, size_t{7}}) {
    RoutingRecord record = record_at(line);
    record.kept[0] = !record.kept[0];
    edited[line] = to_line(record);
  }
  write(edited);
  const ReplayReport report = replayed();
  EXPECT_EQ(report.num_different, 2);
  EXPECT_THAT(report.first_difference, HasSubstr("rank1: line 5: request 3, position 2, layer 10: expert "));
  EXPECT_THAT(report.first_difference, HasSubstr(" but is "));
}

TEST_F(RoutingAuditTest, ReplayFindsChangedDestinationsAndScores) {
  audit_a_request();
  const std::vector<std::string> original = lines();
  std::vector<std::string> edited = original;
  RoutingRecord record = record_at(2);
  record.destinations = record.destinations == std::vector<int32_t>{0} ? std::vector<int32_t>{1} : std::vector<int32_t>{0};
  edited[2] = to_line(record);
  write(edited);
  EXPECT_THAT(replayed().first_difference, HasSubstr("its destinations are not the owners"));

  write(original);
  record = record_at(2);
  record.threshold += 1e-6f;
  edited[2] = to_line(record);
  write(edited);
  EXPECT_THAT(replayed().first_difference, HasSubstr("its scores or its threshold"));
}

TEST_F(RoutingAuditTest, ReplayRefusesDecisionsWithoutTheirTableOrLevel) {
  audit_a_request();
  std::vector<std::string> edited = lines();
  RoutingRecord record = record_at(2);
  record.level = 2;
  edited[2] = to_line(record);
  write(edited);
  EXPECT_THROW(replayed(), InvalidFile);
  edited.erase(edited.begin() + 1);
  write(edited);
  EXPECT_THROW(replayed(), InvalidFile);
}

TEST_F(RoutingAuditTest, DecisionsOfABatchAreCountedAndNotReplayed) {
  LevelTable levels = two_levels();
  levels.levels[1].rank_capacity = 1.0f;
  RoutingRecord record;
  record.level = 1;
  record.experts = {1, 2};
  record.weights = {0.5f, 0.5f};
  record.kept = {false, false};
  write({to_line(AuditedRank::header()), to_line(levels), to_line(record)});
  EXPECT_EQ(replayed().num_of_batch, 1);
  EXPECT_EQ(replayed().num_different, 0);
}

TEST_F(RoutingAuditTest, AnotherPointWouldHaveSkippedWhatItSkips) {
  audit_a_request();
  const ReplayReport logged = replayed();
  LevelTable levels = two_levels();
  levels.levels[1].tau = {2.0f, 2.0f};
  AuditReader reader(rank_file());
  const WhatIfReport report = decide_otherwise(reader, {.levels = levels, .level = 1, .num_ranks = std::nullopt});
  int64_t skipped_as_logged = 0;
  for (size_t c = 0; c < kNumTokenClasses; ++c) {
    const bool is_protected = c == static_cast<size_t>(TokenClass::kProtected);
    EXPECT_EQ(report.pairs[c].skipped_otherwise, is_protected ? 0 : report.pairs[c].routed);
    skipped_as_logged += report.pairs[c].skipped_as_logged;
  }
  EXPECT_EQ(skipped_as_logged, logged.num_skipped);
  const WhatIfReport::Rows& rows = report.rows[static_cast<size_t>(Hop::kNetwork)];
  EXPECT_LT(rows.otherwise, rows.as_logged);
  EXPECT_LE(rows.as_logged, rows.routed);
  EXPECT_EQ(report.rows[static_cast<size_t>(Hop::kLocal)].routed, 0);
  EXPECT_EQ(report.rows[static_cast<size_t>(Hop::kNode)].routed, 0) << "the two ranks are on two nodes";
}

TEST_F(RoutingAuditTest, LevelZeroElsewhereSkipsNothing) {
  audit_a_request();
  AuditReader reader(rank_file());
  const WhatIfReport report = decide_otherwise(reader, {.levels = two_levels(), .level = 0, .num_ranks = 1});
  for (const WhatIfReport::Pairs& pairs : report.pairs) EXPECT_EQ(pairs.skipped_otherwise, 0);
  for (const WhatIfReport::Rows& rows : report.rows) EXPECT_EQ(rows.routed, 0) << "one rank sends nothing";
}

TEST_F(RoutingAuditTest, RegroupsExpertsOverOtherRanks) {
  RoutingRecord record;  // request 0: its source is rank 0
  record.experts = {0, 2, 5, 7};
  record.weights = {0.4f, 0.3f, 0.2f, 0.1f};
  record.kept = {true, true, true, true};
  write({to_line(AuditedRank::header()), to_line(two_levels()), to_line(record)});
  LevelTable levels = two_levels();
  levels.levels[1].tau = {0.05f, 0.0f};  // alpha is 1/3: skips the last alone
  AuditReader reader(rank_file());
  const WhatIfReport report = decide_otherwise(reader, {.levels = levels, .level = 1, .num_ranks = 8});
  const WhatIfReport::Rows& rows = report.rows[static_cast<size_t>(Hop::kNetwork)];
  EXPECT_THAT((std::vector<int64_t>{rows.routed, rows.as_logged, rows.otherwise}), ElementsAre(3, 3, 2));
}

TEST_F(RoutingAuditTest, APointOfBatchesIsRefusedAsAWhatIf) {
  audit_a_request();
  LevelTable levels = two_levels();
  levels.levels[1].decode_base_k = 1;
  AuditReader reader(rank_file());
  EXPECT_THROW(decide_otherwise(reader, {.levels = levels, .level = 1, .num_ranks = std::nullopt}), InvalidRequest);
}

}  // namespace
}  // namespace skipper
