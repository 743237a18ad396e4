#include "planning/expert_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace skipper {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;

constexpr int kLayers = 2, kExperts = 3, kRanks = 2;
const PlanSubject kSubject{"0123456789abcdef", kLayers, kExperts, kRanks};

TierBudget budget(size_t bytes, size_t expert_bytes) {
  TierBudget tier{.budget_bytes = bytes, .use = {}};
  tier.use = {.runtime = 10, .dense_weights = 20, .kv_cache = 30, .buffers = 35, .reference_experts = 5,
              .experts = {{"int4a-g32", expert_bytes}}};
  return tier;
}

// Experts 0 and 1 on rank 0, expert 2 on rank 1 with a shadow of expert 0.
ExpertPlan some_plan() {
  ExpertPlan plan;
  plan.subject = kSubject;
  plan.origin = {.target = "throughput", .profile = "measured", .kv_tokens_per_rank = 4096};
  const WeightFormat int4{WeightKind::kInt4Asymmetric, 32}, int8{WeightKind::kInt8, 64}, int2{WeightKind::kInt2Asymmetric, 32};
  for (int32_t layer = 0; layer < kLayers; ++layer) {
    plan.copies.push_back({.id = {layer, 0}, .rank = 0, .slot = 0, .format = int8, .tier = MemoryTier::kDevice,
                           .runs_on = ComputePlace::kDevice});
    plan.copies.push_back({.id = {layer, 1}, .rank = 0, .slot = 1, .format = int4, .hash = "00ff00ff00ff00ff"});
    plan.copies.push_back({.id = {layer, 0}, .rank = 1, .slot = 0, .format = int2, .role = CopyRole::kShadow});
    plan.copies.push_back({.id = {layer, 2}, .rank = 1, .slot = 1, .format = {}, .tier = MemoryTier::kDisk});
  }
  plan.ranks.resize(kRanks);
  for (RankPlanMemory& rank : plan.ranks) {
    rank.tiers = {{MemoryTier::kHost, budget(1000, 900)}, {MemoryTier::kDisk, budget(500, 100)}};
  }
  plan.ranks[0].tiers[MemoryTier::kDevice] = budget(2000, 7);
  plan.predicted = {.loss = 0.125, .expert_bits = 5.5, .bytes_per_token = 1e6, .seconds_per_token = 0.25};
  plan.certificate = {.loss_bound = 0.12, .seconds_bound = 0.2, .gap = 0.04, .method = "exact"};
  return plan;
}

std::string write(const std::string& text) {
  const std::string path = testing::TempDir() + "/plan.json";
  std::ofstream(path) << text;
  return path;
}

std::string error_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const InvalidFile& error) {
    return error.what();
  }
  return "no error";
}

// The message of loading some_plan() after `edit` of its JSON.
std::string error_after(const std::function<void(json&)>& edit) {
  json file = json::parse(to_json(some_plan()));
  edit(file);
  const std::string path = write(file.dump());
  const std::string message = error_of([&] { load_expert_plan(path, kSubject); });
  EXPECT_EQ(message.find('\n'), std::string::npos);
  return message;
}

TEST(ExpertPlan, ReadsWhatItWrote) {
  ExpertPlan plan = some_plan();
  check_expert_plan(plan, "plan");
  const std::string path = write(to_json(plan));
  EXPECT_EQ(load_expert_plan(path, kSubject), plan);
  EXPECT_EQ(load_expert_plan(path), plan);
}

TEST(ExpertPlan, ListsTheCopiesOfARankBySlot) {
  ExpertPlan plan = some_plan();
  std::ranges::reverse(plan.copies);
  check_expert_plan(plan, "plan");
  const auto layers = plan.copies_of(1);
  ASSERT_EQ(layers.size(), 2u);
  ASSERT_EQ(layers[1].size(), 2u);
  EXPECT_EQ(layers[1][0].id, (ExpertId{1, 0}));
  EXPECT_EQ(layers[1][0].role, CopyRole::kShadow);
  EXPECT_EQ(layers[1][1].id, (ExpertId{1, 2}));
}

TEST(ExpertPlan, HoldsAModelWithoutMoeLayers) {
  ExpertPlan plan;
  plan.subject = {"0123456789abcdef", 0, 1, 1};
  plan.ranks.resize(1);
  const std::string path = write(to_json(plan));
  EXPECT_TRUE(load_expert_plan(path, plan.subject).copies_of(0).empty());
}

TEST(ExpertPlan, NamesBothFingerprintsOfAnotherModel) {
  EXPECT_THAT(error_after([](json& file) { file["model_fingerprint"] = "fedcba9876543210"; }),
              AllOf(HasSubstr("fedcba9876543210"), HasSubstr("0123456789abcdef")));
}

TEST(ExpertPlan, RefusesAnotherNumberOfRanksLayersOrExperts) {
  EXPECT_THAT(error_after([](json& file) { file["world_size"] = 3; }), AllOf(HasSubstr("3 ranks"), HasSubstr("--ranks 2")));
  EXPECT_THAT(error_after([](json& file) { file["num_experts"] = 4; }), HasSubstr("num_experts: 4, but here it is 3"));
  EXPECT_THAT(error_after([](json& file) { file["num_moe_layers"] = 1; }), HasSubstr("num_moe_layers"));
  EXPECT_THAT(error_after([](json& file) { file["ranks"].erase(1); }), HasSubstr("budgets of 1 ranks"));
}

TEST(ExpertPlan, RefusesUnknownVersionsKeysAndWords) {
  EXPECT_THAT(error_after([](json& file) { file["version"] = 2; }), HasSubstr("version: 2"));
  EXPECT_THAT(error_after([](json& file) { file["copie"] = 1; }), HasSubstr("copie: unknown key; did you mean 'copies'?"));
  EXPECT_THAT(error_after([](json& file) { file["copies"][3]["sloth"] = 1; }), HasSubstr("copies[3]: sloth: unknown key"));
  EXPECT_THAT(error_after([](json& file) { file["copies"][0]["format"] = "int5-g32"; }), HasSubstr("int5-g32"));
  EXPECT_THAT(error_after([](json& file) { file["copies"][0]["tier"] = "tape"; }),
              HasSubstr("tier: 'tape' is unknown; expected device, host or disk"));
  EXPECT_THAT(error_after([](json& file) { file["origin"]["target"] = "fun"; }), HasSubstr("origin: target: 'fun'"));
  EXPECT_THAT(error_after([](json& file) { file["ranks"][0]["host"]["experts"]["int9"] = 1; }), HasSubstr("int9"));
  EXPECT_THAT(error_after([](json& file) { file.erase("certificate"); }), HasSubstr("certificate: is missing"));
  EXPECT_THAT(error_after([](json& file) { file["copies"] = 1; }), HasSubstr("copies: is missing; expected a list"));
}

TEST(ExpertPlan, RefusesMissingAndDoubleCopies) {
  EXPECT_THAT(error_after([](json& file) { file["copies"].erase(7); }), HasSubstr("expert 2 of MoE layer 1 has no copy"));
  // A shadow does not serve.
  EXPECT_THAT(error_after([](json& file) { file["copies"][0]["shadow"] = true; }),
              HasSubstr("expert 0 of MoE layer 0 has no copy"));
  EXPECT_THAT(error_after([](json& file) { file["copies"][1]["expert"] = 0; }), HasSubstr("two copies on rank 0"));
  EXPECT_THAT(error_after([](json& file) { file["copies"][1]["slot"] = 2; }), HasSubstr("slot 2 of rank 0; expected slot 1"));
  EXPECT_THAT(error_after([](json& file) { file["copies"][1]["slot"] = 0; }), HasSubstr("slot 0 of rank 0; expected slot 1"));
}

TEST(ExpertPlan, RefusesPlacesThatDoNotExist) {
  EXPECT_THAT(error_after([](json& file) { file["copies"][0]["rank"] = 2; }), HasSubstr("is on rank 2"));
  EXPECT_THAT(error_after([](json& file) { file["copies"][0]["layer"] = 2; }),
              HasSubstr("expert 0 of MoE layer 2 does not exist"));
  EXPECT_THAT(error_after([](json& file) { file["copies"][0]["expert"] = 3; }), HasSubstr("does not exist"));
  EXPECT_THAT(error_after([](json& file) { file["copies"][2]["tier"] = "device"; }), HasSubstr("tier device of rank 1"));
  EXPECT_THAT(error_after([](json& file) { file["copies"][2]["runs_on"] = "device"; }), HasSubstr("runs on a device of rank 1"));
  EXPECT_THAT(error_after([](json& file) { file["copies"][0]["runs_on"] = "host"; }), HasSubstr("but runs on its host"));
}

TEST(ExpertPlan, RefusesABrokenHashAndABudgetThatIsExceeded) {
  EXPECT_THAT(error_after([](json& file) { file["copies"][0]["hash"] = "xyz"; }), HasSubstr("the hash 'xyz'"));
  EXPECT_THAT(error_after([](json& file) { file["ranks"][1]["host"]["budget"] = 999; }),
              HasSubstr("rank 1 uses 1000 bytes of host memory, over its budget of 999"));
}

}  // namespace
}  // namespace skipper
