// The guard around the demo model: wrong weights are found and replaced, right ones left alone, and no answer changes by it.
#include "engine/engine_guard.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <string>
#include <thread>
#include <vector>

#include "kernels/packed_matrix.h"
#include "tests/support/demo_engine.h"

namespace skipper {
namespace {

constexpr int kSpoiledLayer = 3;
constexpr size_t kSpoiledSlot = 2;

std::vector<GenerationRequest> questions() {
  std::vector<GenerationRequest> requests;
  for (const char* question : {"What is 83 + 20?", "Spell the word 'house'.", "Sort these numbers: 5, 3, 9.", "Compute 2 x 1.",
                               "Tell me about the sea.", "Which is larger, 17 or 71?"}) {
    requests.push_back(demo_text_request(question));
  }
  requests.push_back(demo_image_request("shapes_000.jpg", "What color is the star?"));
  return requests;
}

std::vector<std::vector<int32_t>> answers(DemoEngine& demo) {
  const std::vector<GenerationRequest> requests = questions();
  std::vector<std::vector<int32_t>> found;
  for (const DrivenResult& result :
       demo.driver.run(requests.size(), [&](size_t i) { return requests[i]; }, [](size_t, size_t) {})) {
    found.push_back(result.generated_ids);
  }
  return found;
}

DemoEngineOptions options_with(const std::string& format, const GuardConfig& guard, int num_ranks = 2) {
  DemoEngineOptions options;
  options.num_ranks = num_ranks;
  options.engine = demo_engine_config();
  options.weights.experts = parse_weight_format(format, "test");
  options.guard = guard;
  return options;
}

std::vector<std::vector<int32_t>> answers_of(const std::string& format) {
  std::vector<std::vector<int32_t>> found;
  with_demo_engine(options_with(format, {}), [&](DemoEngine& demo) { found = answers(demo); });
  return found;
}

// The weights are those of a loader that went wrong: nobody may write to them.
PackedMatrix down_of_spoiled(const MultimodalModel& model) { return model.expert_store().down(kSpoiledLayer)[kSpoiledSlot]; }

void scale_by_half_more(PackedMatrix matrix) {
  for (bf16& scale : matrix.scales.span<bf16>()) scale = bf16(1.5f * static_cast<float>(scale));
}

void overwrite_codes(PackedMatrix matrix) {
  std::fill_n(matrix.codes.bytes(), matrix.codes.num_bytes(), std::byte{0xff});
}

DemoEngineOptions spoiled_on_rank_1(const GuardConfig& guard, void (*spoil)(PackedMatrix)) {
  DemoEngineOptions options = options_with("int4a-g32", guard);
  options.prepare_model = [spoil](int rank, MultimodalModel& model) {
    if (rank == 1) spoil(down_of_spoiled(model));
  };
  return options;
}

int spoiled_expert() {
  return ExpertPlacement::contiguous({.num_moe_layers = 6, .num_experts = 32, .world_size = 2})
      .experts_of(1, kSpoiledLayer)[kSpoiledSlot];
}

class SpoiledExpert : public testing::TestWithParam<void (*)(PackedMatrix)> {};
INSTANTIATE_TEST_SUITE_P(Ways, SpoiledExpert, testing::Values(scale_by_half_more, overwrite_codes));

TEST_P(SpoiledExpert, IsFoundNamedAndReplacedByTheReference) {
  const std::string log = testing::TempDir() + "engine_guard_test.jsonl";
  std::remove(log.c_str());
  const std::vector<std::vector<int32_t>> expected = answers_of("bf16");
  with_demo_engine(spoiled_on_rank_1({.share = 0.5, .min_rows = 8, .log = log}, GetParam()), [&](DemoEngine& demo) {
    answers(demo);
    const GuardState state = demo.engine.guard().state();
    EXPECT_EQ(state.serving, ExpertSet::kReference);
    ASSERT_TRUE(state.breach);
    EXPECT_EQ(state.breach->rank, 1);
    EXPECT_EQ(state.breach->moe_layer, kSpoiledLayer);
    EXPECT_EQ(state.breach->expert, spoiled_expert());
    EXPECT_EQ(state.num_rollbacks, 1);
    EXPECT_LT(state.rollback_step, 20);
    EXPECT_EQ(answers(demo), expected) << "not the reference's";
    EXPECT_EQ(demo.engine.guard().state().num_rollbacks, 1);
  });
  std::ifstream in(log);
  std::string line;
  ASSERT_TRUE(std::getline(in, line));
  EXPECT_NE(line.find(R"("action":"rollback")"), std::string::npos) << line;
  EXPECT_FALSE(std::getline(in, line)) << line;
}

TEST(EngineGuard, TripsAgainWhenItIsArmedWithoutARepair) {
  with_demo_engine(spoiled_on_rank_1({.share = 0.5, .min_rows = 8}, scale_by_half_more), [&](DemoEngine& demo) {
    answers(demo);
    ASSERT_EQ(demo.engine.guard().state().serving, ExpertSet::kReference);
    demo.engine.guard().arm();
    demo.engine.step();
    EXPECT_EQ(demo.engine.guard().state().serving, ExpertSet::kServed);
    EXPECT_EQ(demo.engine.guard().state().term, 1u);
    answers(demo);
    EXPECT_EQ(demo.engine.guard().state().serving, ExpertSet::kReference);
    EXPECT_EQ(demo.engine.guard().state().num_rollbacks, 2);
  });
}

// Two policies that differ in the first layer.
DemoEngineOptions switchable(const GuardConfig& guard) {
  const WeightFormat four_bits = parse_weight_format("int4a-g32", "test"), eight_bits = parse_weight_format("int8-g64", "test");
  std::vector<WeightFormat> formats(6, four_bits);
  DemoEngineOptions options = options_with("bf16", guard, 1);
  options.policies = {{"four", formats}, {"eight", formats}};
  options.policies[1].formats[0] = eight_bits;
  return options;
}

void step_until_ended(DemoEngine& demo) {
  for (int step = 0; step < 10'000 && demo.engine.expert_switch().is_under_way(); ++step) {
    demo.engine.step();
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  ASSERT_FALSE(demo.engine.expert_switch().is_under_way());
}

void switch_to(DemoEngine& demo, const std::string& policy) {
  demo.engine.switch_experts({.policy = policy, .deadline = std::chrono::seconds(60)});
  step_until_ended(demo);
  ASSERT_EQ(demo.engine.expert_switch().state().policy, policy) << demo.engine.expert_switch().state().last.failure;
}

std::vector<std::string> actions_in(const std::string& log) {
  std::vector<std::string> actions;
  std::ifstream in(log);
  for (std::string line; std::getline(in, line);) {
    const size_t begin = line.find("\"action\":\"") + 10;
    actions.push_back(line.substr(begin, line.find('"', begin) - begin));
  }
  return actions;
}

TEST(EngineGuard, WatchesTheExpertsOfEveryPolicyByTheirOwnFormats) {
  with_demo_engine(switchable({.share = 0.5, .min_rows = 8}), [&](DemoEngine& demo) {
    for (const char* policy : {"eight", "four", "eight"}) {
      switch_to(demo, policy);
      answers(demo);
      const GuardState state = demo.engine.guard().state();
      EXPECT_EQ(state.num_rollbacks, 0) << state.breach->text();
      EXPECT_EQ(state.served, policy);
      EXPECT_TRUE(state.worst.has_expert()) << "the new experts are not watched";
    }
    EXPECT_EQ(demo.engine.guard().state().version, 4u);
  });
}

TEST(EngineGuard, ReturnsToTheLastGoodPolicyAndMendsWhatBothShare) {
  const std::string log = testing::TempDir() + "engine_guard_return_test.jsonl";
  std::remove(log.c_str());
  with_demo_engine(switchable({.share = 0.5, .min_rows = 8, .log = log}), [&](DemoEngine& demo) {
    const std::vector<std::vector<int32_t>> expected = answers(demo);
    switch_to(demo, "eight");
    scale_by_half_more(down_of_spoiled(demo.model));
    for (int round = 0; round < 6 && demo.engine.guard().state().num_rollbacks == 0; ++round) answers(demo);
    ASSERT_EQ(demo.engine.guard().state().num_rollbacks, 1);
    step_until_ended(demo);
    const GuardState state = demo.engine.guard().state();
    EXPECT_EQ(state.serving, ExpertSet::kServed);
    EXPECT_EQ(state.served, "four");
    EXPECT_EQ(state.version, 3u);
    EXPECT_FALSE(state.breach);
    EXPECT_EQ(answers(demo), expected);
    EXPECT_EQ(demo.engine.guard().state().num_rollbacks, 1) << "the expert that both policies share is still wrong";
  });
  EXPECT_EQ(actions_in(log), (std::vector<std::string>{"rollback", "return"}));
}

TEST(EngineGuard, StaysOnTheReferenceWithoutAGoodPolicyUntilAnOperatorSwitches) {
  const std::vector<std::vector<int32_t>> reference = answers_of("bf16");
  with_demo_engine(switchable({.share = 0.5, .min_rows = 8}), [&](DemoEngine& demo) {
    const std::vector<std::vector<int32_t>> expected = answers(demo);
    scale_by_half_more(down_of_spoiled(demo.model));
    answers(demo);
    EXPECT_EQ(demo.engine.guard().state().serving, ExpertSet::kReference);
    EXPECT_EQ(demo.engine.guard().state().stays, "no other plan has served before");
    EXPECT_EQ(answers(demo), reference);
    switch_to(demo, "four");
    EXPECT_EQ(demo.engine.guard().state().serving, ExpertSet::kServed);
    EXPECT_EQ(answers(demo), expected) << "the policy that was wrong is not mended";
    EXPECT_EQ(demo.engine.guard().state().num_rollbacks, 1);
  });
}

class CleanWeights : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Formats, CleanWeights,
                         testing::Values("bf16", "int8-g64", "int4-g32", "int4a-g64", "int3a-g32", "int2a-g32"));

TEST_P(CleanWeights, RaiseNoAlarmAndAnswerAsWithoutAGuard) {
  const std::vector<std::vector<int32_t>> expected = answers_of(GetParam());
  const GuardConfig guard{.share = 0.5, .request_share = 1.0, .max_kl = 10.0, .min_rows = 8};
  with_demo_engine(options_with(GetParam(), guard), [&](DemoEngine& demo) {
    double worst = 0.0;
    for (int round = 0; round < 6; ++round) {
      EXPECT_EQ(answers(demo), expected);
      const GuardState state = demo.engine.guard().state();
      worst = std::max(worst, state.worst.excess());
      ASSERT_EQ(state.num_rollbacks, 0) << state.breach->text();
    }
    const GuardState state = demo.engine.guard().state();
    EXPECT_GT(state.num_rows, 1000);
    EXPECT_GT(state.num_scored_tokens, 20);
    RecordProperty("worst_error_over_threshold", std::to_string(worst));
    std::cout << GetParam() << ": worst expert " << worst << " of its threshold, error " << state.relative_error << ", KL "
              << state.mean_kl << " over " << state.num_scored_tokens << " tokens\n";
    if (std::string(GetParam()) == "bf16") {
      EXPECT_EQ(state.relative_error, 0.0);
      EXPECT_EQ(state.mean_kl, 0.0);
    } else {
      EXPECT_GT(state.relative_error, 0.0);
      EXPECT_GT(state.mean_kl, 0.0);
    }
  });
}

TEST(EngineGuard, RollsBackWhenPredictionsAreTooFarFromTheReferences) {
  // Next to no row is compared, so that only answers tell.
  const GuardConfig guard{.share = 1e-9, .request_share = 1.0, .max_kl = 0.001, .min_tokens = 16};
  with_demo_engine(options_with("int2a-g32", guard, 1), [&](DemoEngine& demo) {
    for (int round = 0; round < 6; ++round) answers(demo);
    const GuardState state = demo.engine.guard().state();
    ASSERT_TRUE(state.breach);
    EXPECT_EQ(state.breach->kind, BreachKind::kPredictions);
    EXPECT_GT(state.breach->measured, 0.001);
    EXPECT_EQ(answers(demo), answers_of("bf16"));
  });
}

}  // namespace
}  // namespace skipper
