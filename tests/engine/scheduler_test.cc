#include "engine/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <numeric>
#include <random>

#include "base/error.h"

namespace skipper {
namespace {

constexpr int32_t kStopToken = 9;

EngineConfig small_config() {
  EngineConfig config;
  config.max_tokens_per_step = 8;
  config.max_sequences_per_rank = 4;
  config.max_logit_rows = 4;
  config.kv_block_size = 4;
  config.kv_blocks_per_rank = 16;
  config.max_model_len = 32;
  return config;
}

// A scheduler with fake ranks: every sampled token is `next_token`.
struct Simulation {
  Simulation(const EngineConfig& config, int num_ranks) : scheduler(config, num_ranks), config(config) {}

  uint64_t submit(int32_t num_prompt, int32_t max_new_tokens, ExpertSet experts = ExpertSet::kServed) {
    Submission submission;
    submission.experts = experts;
    submission.floor = floor;
    submission.request.id = ++last_id;
    submission.request.prompt_ids.resize(static_cast<size_t>(num_prompt), 1);
    submission.request.max_new_tokens = max_new_tokens;
    submission.request.stop_token_ids = {kStopToken};
    submission.cancelled = std::make_shared<std::atomic<bool>>(false);
    cancel_flags[last_id] = submission.cancelled;
    submission.sink = [this, id = last_id](const TokenEvent& event) {
      events[id].push_back(event);
      return true;
    };
    scheduler.submit(std::move(submission));
    return last_id;
  }

  StepPlan step() {
    StepPlan plan = scheduler.next_plan(admissions);
    plan.expert_order.version = expert_version;
    std::vector<std::vector<SequenceResult>> results;
    for (const RankPlan& rank : plan.ranks) {
      results.emplace_back();
      for (const SequenceStep& s : rank.sequences) {
        results.back().push_back({.sequence_id = s.sequence_id, .token_id = s.sample ? next_token : -1});
      }
    }
    scheduler.apply(plan, results);
    return plan;
  }

  int32_t num_tokens(uint64_t id) const {
    const auto found = events.find(id);
    if (found == events.end()) return 0;
    int32_t count = 0;
    for (const TokenEvent& event : found->second) count += event.token_id >= 0 ? 1 : 0;
    return count;
  }
  FinishReason ended(uint64_t id) const {
    const auto found = events.find(id);
    return found == events.end() ? FinishReason::kNone : found->second.back().finish_reason;
  }

  Scheduler scheduler;
  EngineConfig config;
  uint64_t last_id = 0;
  int32_t next_token = 2;
  uint32_t expert_version = kFirstExpertVersion;
  PolicyFloor floor = {};
  std::map<uint64_t, std::vector<TokenEvent>> events;
  std::map<uint64_t, std::shared_ptr<std::atomic<bool>>> cancel_flags;
  std::vector<std::vector<std::byte>> admissions;
};

TEST(Scheduler, PlansAHeartbeatWhenThereIsNothingToDo) {
  Simulation simulation(small_config(), 2);
  const StepPlan plan = simulation.step();
  EXPECT_EQ(plan.kind, StepKind::kIdle);
  EXPECT_EQ(plan.ranks.size(), 2u);
  EXPECT_FALSE(simulation.scheduler.has_work());
}

TEST(Scheduler, CutsAPromptIntoChunksOfTheTokenBudgetAndSamplesAfterTheLast) {
  Simulation simulation(small_config(), 1);
  const uint64_t id = simulation.submit(19, 2);
  std::vector<int32_t> chunks;
  std::vector<bool> samples;
  for (int i = 0; i < 3; ++i) {
    const StepPlan plan = simulation.step();
    chunks.push_back(plan.ranks[0].sequences.at(0).num_tokens);
    samples.push_back(plan.ranks[0].sequences.at(0).sample);
  }
  EXPECT_EQ(chunks, (std::vector<int32_t>{8, 8, 3}));
  EXPECT_EQ(samples, (std::vector<bool>{false, false, true}));
  EXPECT_EQ(simulation.num_tokens(id), 1);
}

TEST(Scheduler, DecodesGoFirstWhileAnotherPromptIsPrefilled) {
  Simulation simulation(small_config(), 1);
  const uint64_t first = simulation.submit(2, 10);
  simulation.step();
  simulation.submit(20, 1);
  const StepPlan plan = simulation.step();
  ASSERT_EQ(plan.ranks[0].sequences.size(), 2u);
  EXPECT_EQ(plan.ranks[0].sequences[0].sequence_id, first);
  EXPECT_EQ(plan.ranks[0].sequences[0].num_tokens, 1);
  EXPECT_EQ(plan.ranks[0].sequences[1].num_tokens, 7);
}

TEST(Scheduler, AChunkHasOneLevelAlsoWhenItIsComputedAgain) {
  Scheduler scheduler(small_config(), 1);
  Submission submission;
  submission.request.id = 1;
  submission.request.prompt_ids.resize(7, 1);
  submission.request.level = 2;
  submission.request.level_choice = LevelChoice::kGlobal;
  submission.request.level_history = LevelHistory({{2, 1}, {5, 0}});
  submission.sink = [](const TokenEvent&) { return true; };
  scheduler.submit(std::move(submission));
  scheduler.set_global_level(3);
  std::vector<std::vector<std::byte>> admissions;
  std::vector<std::pair<int32_t, int>> chunks;
  for (int i = 0; i < 4; ++i) {
    const StepPlan plan = scheduler.next_plan(admissions);
    const SequenceStep& step = plan.ranks[0].sequences.at(0);
    chunks.emplace_back(step.num_tokens, step.level);
    const std::vector<std::vector<SequenceResult>> results = {{{.sequence_id = 1, .token_id = 3}}};
    scheduler.apply(plan, results);
    scheduler.set_global_level(static_cast<uint8_t>(i == 2 ? 1 : 3));
  }
  // The global level is 3, but this request may have 2 at most; the last chunk follows the global level down.
  EXPECT_EQ(chunks, (std::vector<std::pair<int32_t, int>>{{2, 1}, {3, 0}, {2, 2}, {1, 1}}));
}

TEST(Scheduler, GivesRequestsToTheRankWithTheFewestPendingTokens) {
  Simulation simulation(small_config(), 2);
  simulation.submit(16, 1);
  simulation.submit(2, 1);
  simulation.submit(2, 1);
  const StepPlan plan = simulation.step();
  EXPECT_EQ(plan.ranks[0].sequences.size(), 1u);
  EXPECT_EQ(plan.ranks[1].sequences.size(), 2u);
}

TEST(Scheduler, EndsOnStopTokenOnLengthAndOnContextLength) {
  Simulation simulation(small_config(), 1);
  const uint64_t by_length = simulation.submit(3, 2);
  simulation.step();
  simulation.step();
  EXPECT_EQ(simulation.ended(by_length), FinishReason::kLength);
  const uint64_t by_context = simulation.submit(30, 100);
  for (int i = 0; i < 6; ++i) simulation.step();
  EXPECT_EQ(simulation.ended(by_context), FinishReason::kLength);
  EXPECT_EQ(simulation.num_tokens(by_context), 2);
  simulation.next_token = kStopToken;
  const uint64_t by_stop = simulation.submit(3, 5);
  simulation.step();
  EXPECT_EQ(simulation.ended(by_stop), FinishReason::kStop);
  EXPECT_EQ(simulation.num_tokens(by_stop), 1);
}

TEST(Scheduler, ACancelledSequenceFreesItsBlocksInTheNextStep) {
  Simulation simulation(small_config(), 1);
  const uint64_t id = simulation.submit(10, 10);
  simulation.step();
  EXPECT_GT(simulation.scheduler.kv_used_fraction(), 0.0);
  simulation.cancel_flags[id]->store(true);
  const StepPlan plan = simulation.step();
  EXPECT_THAT(plan.ranks[0].released, testing::ElementsAre(id));
  EXPECT_EQ(simulation.scheduler.kv_used_fraction(), 0.0);
  EXPECT_EQ(simulation.ended(id), FinishReason::kCancelled);
}

TEST(Scheduler, ASinkThatReturnsFalseCancelsItsRequest) {
  EngineConfig config = small_config();
  Scheduler scheduler(config, 1);
  Submission submission;
  submission.request.id = 1;
  submission.request.prompt_ids = {1, 2};
  submission.request.max_new_tokens = 20;
  submission.cancelled = std::make_shared<std::atomic<bool>>(false);
  int num_events = 0;
  submission.sink = [&](const TokenEvent&) { return ++num_events < 2; };
  scheduler.submit(std::move(submission));
  std::vector<std::vector<std::byte>> admissions;
  for (int i = 0; i < 6; ++i) {
    const StepPlan plan = scheduler.next_plan(admissions);
    std::vector<std::vector<SequenceResult>> results(1);
    for (const SequenceStep& s : plan.ranks[0].sequences) results[0].push_back({.sequence_id = s.sequence_id, .token_id = 3});
    scheduler.apply(plan, results);
  }
  EXPECT_EQ(num_events, 3);  // two tokens, then the cancellation
  EXPECT_EQ(scheduler.num_running(), 0);
}

TEST(Scheduler, PreemptsTheNewestWhenBlocksRunOutAndReplaysItWithItsTokens) {
  EngineConfig config = small_config();
  config.kv_blocks_per_rank = 8;
  config.max_model_len = 32;
  Simulation simulation(config, 1);
  const uint64_t old_one = simulation.submit(4, 26);
  const uint64_t new_one = simulation.submit(4, 26);
  for (int i = 0; i < 80; ++i) simulation.step();
  EXPECT_GT(simulation.scheduler.num_preemptions(), 0);
  EXPECT_EQ(simulation.num_tokens(old_one), 26);
  EXPECT_EQ(simulation.num_tokens(new_one), 26);
  EXPECT_EQ(simulation.scheduler.kv_used_fraction(), 0.0);
}

// Invariants that hold for any traffic: budgets are kept, blocks are never shared, nothing is lost, everything is freed.
TEST(Scheduler, KeepsItsInvariantsUnderRandomTraffic) {
  std::mt19937 random(7);
  for (int round = 0; round < 20; ++round) {
    EngineConfig config = small_config();
    config.kv_blocks_per_rank = 8 + static_cast<int64_t>(random() % 12);
    const int num_ranks = 1 + static_cast<int>(random() % 3);
    Simulation simulation(config, num_ranks);
    std::map<uint64_t, int32_t> wanted;
    std::map<uint64_t, std::pair<int, std::vector<int32_t>>> blocks;
    for (int i = 0; i < 400; ++i) {
      if (i < 200 && random() % 3 == 0) {
        const int32_t num_prompt = 1 + static_cast<int32_t>(random() % 20);
        const int32_t max_new = 1 + static_cast<int32_t>(random() % 11);
        wanted[simulation.submit(num_prompt, max_new)] = max_new;
      }
      const StepPlan plan = simulation.step();
      // A preempted sequence may start again on another rank in the same step.
      for (const RankPlan& rank : plan.ranks) {
        for (const uint64_t id : rank.released) blocks.erase(id);
      }
      for (int r = 0; r < num_ranks; ++r) {
        const RankPlan& rank = plan.ranks[static_cast<size_t>(r)];
        ASSERT_LE(rank.num_tokens(), config.max_tokens_per_step);
        ASSERT_LE(rank.sequences.size(), static_cast<size_t>(config.max_sequences_per_rank));
        for (const SequenceStep& s : rank.sequences) {
          auto& [owner, table] = blocks[s.sequence_id];
          owner = r;
          table.insert(table.end(), s.new_blocks.begin(), s.new_blocks.end());
          ASSERT_GE(static_cast<int64_t>(table.size()) * config.kv_block_size, s.start + s.num_tokens);
        }
      }
      std::map<std::pair<int, int32_t>, uint64_t> owner_of_block;
      for (const auto& [id, entry] : blocks) {
        for (const int32_t block : entry.second) ASSERT_TRUE(owner_of_block.emplace(std::pair(entry.first, block), id).second);
      }
    }
    ASSERT_FALSE(simulation.scheduler.has_work());
    for (const auto& [id, max_new] : wanted) ASSERT_EQ(simulation.num_tokens(id), max_new);
    ASSERT_EQ(simulation.scheduler.kv_used_fraction(), 0.0);
  }
}

TEST(Scheduler, SetsOfExpertsTakeTurnsAndNoStepMixesThem) {
  Simulation simulation(small_config(), 2);
  std::map<uint64_t, ExpertSet> set_of;
  for (int i = 0; i < 3; ++i) {
    set_of[simulation.submit(5, 4)] = ExpertSet::kServed;
    set_of[simulation.submit(5, 4, ExpertSet::kReference)] = ExpertSet::kReference;
  }
  std::map<ExpertSet, int> num_steps;
  for (int i = 0; i < 40; ++i) {
    const StepPlan plan = simulation.step();
    if (plan.kind == StepKind::kRun) ++num_steps[plan.experts];
    for (const RankPlan& rank : plan.ranks) {
      for (const SequenceStep& step : rank.sequences) EXPECT_EQ(set_of.at(step.sequence_id), plan.experts);
    }
  }
  for (const auto& [id, set] : set_of) EXPECT_EQ(simulation.ended(id), FinishReason::kLength) << id;
  EXPECT_GE(num_steps[ExpertSet::kReference], 4);
  EXPECT_GE(num_steps[ExpertSet::kServed], 4);
}

TEST(Scheduler, EverythingRunsInEveryStepWhileTheReferenceServes) {
  Simulation simulation(small_config(), 1);
  simulation.scheduler.set_experts(ExpertSet::kReference);
  simulation.submit(2, 2);
  simulation.submit(2, 2, ExpertSet::kReference);
  const StepPlan plan = simulation.step();
  EXPECT_EQ(plan.experts, ExpertSet::kReference);
  EXPECT_EQ(plan.ranks[0].sequences.size(), 2u);
}

TEST(Scheduler, AFullRankHasNoStepsForRequestsThatWaitForIt) {
  Simulation simulation(small_config(), 1);
  for (int i = 0; i < 4; ++i) simulation.submit(1, 6);
  simulation.step();
  simulation.submit(1, 1, ExpertSet::kReference);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(simulation.step().experts, ExpertSet::kServed) << "step " << i;
}

TEST(Scheduler, ShowsAnswersThatCameToTheirEnd) {
  Simulation simulation(small_config(), 1);
  std::vector<uint64_t> answered;
  simulation.scheduler.set_answer_observer([&](const Sequence& one, uint8_t) { answered.push_back(one.request().id); });
  const uint64_t whole = simulation.submit(2, 2);
  const uint64_t cancelled = simulation.submit(2, 5);
  simulation.step();
  *simulation.cancel_flags[cancelled] = true;
  for (int i = 0; i < 4; ++i) simulation.step();
  EXPECT_EQ(answered, std::vector<uint64_t>{whole});
}

TEST(Scheduler, TellsOnWhichVersionsOfTheExpertsTokensRan) {
  Simulation simulation(small_config(), 1);
  const uint64_t before = simulation.submit(3, 1);
  simulation.step();
  EXPECT_TRUE(simulation.events[before].back().versions.empty()) << "nothing is switched";
  simulation.scheduler.count_versions();
  const uint64_t id = simulation.submit(10, 4);
  simulation.step();  // 8 tokens of the prompt
  simulation.expert_version = 2;
  for (int i = 0; i < 3; ++i) simulation.step();
  simulation.expert_version = 5;
  simulation.step();
  ASSERT_EQ(simulation.ended(id), FinishReason::kLength);
  const std::vector<VersionTokens> expected = {{1, 8}, {2, 4}, {5, 1}};
  EXPECT_EQ(simulation.events[id].back().versions, expected);
  EXPECT_EQ(simulation.events[id].front().versions, (std::vector<VersionTokens>{{1, 8}, {2, 2}}));
}

TEST(Scheduler, KnowsTheStrictestFloorOfRunningAndWaitingRequests) {
  EngineConfig config = small_config();
  config.max_sequences_per_rank = 1;
  Simulation simulation(config, 1);
  EXPECT_EQ(simulation.scheduler.strictest_floor().lowest, PolicyFloor::kAny);
  simulation.floor = {.lowest = 2, .tier = "bronze"};
  simulation.submit(3, 2);
  simulation.step();
  EXPECT_EQ(simulation.scheduler.strictest_floor().tier, "bronze");
  simulation.floor = {.lowest = 1, .tier = "silver"};
  simulation.submit(3, 1);  // waits
  EXPECT_EQ(simulation.scheduler.strictest_floor().tier, "silver");
  while (simulation.scheduler.has_work()) simulation.step();
  EXPECT_EQ(simulation.scheduler.strictest_floor().lowest, PolicyFloor::kAny);
}

TEST(Scheduler, TellsWhichTokensRanOnReferenceExperts) {
  Simulation simulation(small_config(), 1);
  simulation.scheduler.count_versions();
  const uint64_t id = simulation.submit(3, 2);
  simulation.step();
  simulation.scheduler.set_experts(ExpertSet::kReference);
  simulation.step();
  EXPECT_EQ(simulation.events[id].back().versions, (std::vector<VersionTokens>{{1, 3}, {kReferenceVersion, 1}}));
}

TEST(Scheduler, EndAllTellsRunningAndWaitingRequests) {
  Simulation simulation(small_config(), 1);
  for (int i = 0; i < 8; ++i) simulation.submit(6, 4);
  simulation.step();
  simulation.scheduler.end_all("rank 1 is gone");
  for (uint64_t id = 1; id <= 8; ++id) {
    EXPECT_EQ(simulation.ended(id), FinishReason::kError);
    EXPECT_EQ(simulation.events[id].back().error, "rank 1 is gone");
  }
}

TEST(ValidateRequest, RefusesWhatCanNeverRunAndNamesTheNumbers) {
  GenerationRequest request;
  EXPECT_THROW(validate_request(request, small_config()), InvalidRequest);
  request.prompt_ids.resize(32, 1);
  try {
    validate_request(request, small_config());
    FAIL() << "a prompt as long as the context was accepted";
  } catch (const InvalidRequest& e) {
    EXPECT_EQ(e.code(), "context_length_exceeded");
    EXPECT_THAT(e.what(), testing::AllOf(testing::HasSubstr("32 tokens"), testing::HasSubstr("context length is 32")));
  }
  request.prompt_ids.resize(31);
  EXPECT_NO_THROW(validate_request(request, small_config()));
  request.max_new_tokens = 0;
  EXPECT_THROW(validate_request(request, small_config()), InvalidRequest);
}

// What every rank is told of a step holds for the ranks' parts of it.
void expect_shape_of(const StepPlan& plan) {
  int64_t most_rows = 0, most_samples = 0;
  bool is_decode = true;
  for (const RankPlan& rank : plan.ranks) {
    most_rows = std::max(most_rows, rank.num_tokens());
    int64_t num_samples = 0;
    for (const SequenceStep& step : rank.sequences) {
      num_samples += step.sample ? 1 : 0;
      is_decode = is_decode && step.sample && step.num_tokens == 1;
    }
    most_samples = std::max(most_samples, num_samples);
  }
  EXPECT_EQ(plan.shape.most_rows, most_rows);
  EXPECT_EQ(plan.shape.most_logit_rows, most_samples);
  EXPECT_EQ(plan.shape.is_decode, is_decode);
}

TEST(Scheduler, TellsAllRanksTheShapeOfTheStep) {
  Simulation simulation(small_config(), 2);
  for (const int32_t num_prompt : {1, 7, 3, 12, 2, 1}) simulation.submit(num_prompt, 4);
  int num_decodes = 0, num_others = 0;
  for (StepPlan plan = simulation.step(); plan.kind == StepKind::kRun; plan = simulation.step()) {
    expect_shape_of(plan);
    ++(plan.shape.is_decode ? num_decodes : num_others);
  }
  EXPECT_GT(num_decodes, 0);
  EXPECT_GT(num_others, 0);
}

TEST(Scheduler, CountsEveryTokenOfAScoredPromptAmongTheRowsThatAreRead) {
  Simulation simulation(small_config(), 2);
  simulation.submit(3, 2);
  Submission scored;
  scored.request.id = 77;
  scored.request.prompt_ids.assign(4, 1);
  scored.request.score_prompt = true;
  scored.sink = [](const TokenEvent&) { return true; };
  simulation.scheduler.submit(std::move(scored));
  const ForwardShape shape = simulation.step().shape;
  EXPECT_EQ(shape.most_rows, 4);
  EXPECT_EQ(shape.most_logit_rows, 4);
  EXPECT_FALSE(shape.is_decode);
}

TEST(Scheduler, DoesNotCallAStepADecodeStepWhoseTokenMayBeAnImage) {
  EngineConfig config = small_config();
  config.max_tokens_per_step = 3;
  Simulation simulation(config, 1);
  Submission submission;
  submission.request.id = 78;
  submission.request.prompt_ids.assign(4, 1);
  submission.request.images.emplace_back();
  submission.request.max_new_tokens = 3;
  submission.sink = [](const TokenEvent&) { return true; };
  simulation.scheduler.submit(std::move(submission));
  EXPECT_EQ(simulation.step().shape.most_rows, 3);
  const ForwardShape rest = simulation.step().shape;
  EXPECT_EQ(rest.most_rows, 1);
  EXPECT_FALSE(rest.is_decode);
  EXPECT_TRUE(simulation.step().shape.is_decode);
}

}  // namespace
}  // namespace skipper
