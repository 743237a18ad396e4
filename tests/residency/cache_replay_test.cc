#include "residency/cache_replay.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>

#include "residency/expert_transitions.h"

namespace skipper {
namespace {

constexpr EvictionRule kRules[] = {EvictionRule::kLeastRecent, EvictionRule::kLeastFrequent, EvictionRule::kLayerDistance};

RouteTrace one_layer(const std::vector<std::vector<int32_t>>& sets, int num_experts) {
  RouteTrace trace{{.num_layers = 1, .num_experts = num_experts}, {}};
  for (const auto& experts : sets) trace.sets.push_back({0, experts});
  return trace;
}

// The most hits that any cache can have, by trying every content after every step.
int64_t most_hits(const RouteTrace& trace, int num_frames) {
  const size_t num_contents = size_t{1} << trace.counts.total();
  std::vector<int64_t> best(num_contents, -1);
  best[0] = 0;
  for (const RouteSet& set : trace.sets) {
    size_t needed = 0;
    for (const int32_t expert : set.experts) needed |= size_t{1} << trace.counts.index({set.layer, expert});
    std::vector<int64_t> next(num_contents, -1);
    for (size_t before = 0; before < num_contents; ++before) {
      if (best[before] < 0) continue;
      const int64_t hits = best[before] + std::popcount(before & needed);
      const size_t at_hand = before | needed;
      for (size_t after = at_hand;; after = (after - 1) & at_hand) {
        if (std::popcount(after) <= num_frames) next[after] = std::max(next[after], hits);
        if (after == 0) break;
      }
    }
    best = next;
  }
  return *std::ranges::max_element(best);
}

TEST(CacheReplay, CountsHitsOfAWrittenOutCase) {
  const RouteTrace trace = one_layer({{0}, {1}, {2}, {0}, {1}, {0}}, 3);
  // Two frames, least recent first: 0, 1, 2 for 0, 0 for 1, 1 for 2, and 0 is there.
  EXPECT_EQ(replay_rule(trace, 2, EvictionRule::kLeastRecent).num_hits, 1);
  // The best gives 2 up at once, or 1: one of 0 and 1 misses.
  EXPECT_EQ(replay_optimum(trace, 2).num_hits, 3);
  EXPECT_EQ(replay_optimum(trace, 2).num_needs, 6);
  EXPECT_EQ(replay_optimum(trace, 3).num_hits, 3);
}

TEST(CacheReplay, FindsTheOptimumThatASearchFinds) {
  for (uint32_t seed = 0; seed < 12; ++seed) {
    const ExpertCounts counts{.num_layers = 2, .num_experts = 4};
    const RouteTrace trace = draw_routes(counts, {.top_k = 2, .skew = 0.5, .repeat = 0.3, .follow = 0.3}, 9, seed);
    for (int frames = 1; frames <= 8; ++frames) {
      EXPECT_EQ(replay_optimum(trace, frames).num_hits, most_hits(trace, frames)) << "seed " << seed << ", frames " << frames;
    }
  }
}

TEST(CacheReplay, NeverFindsARuleBetterThanTheOptimum) {
  for (uint32_t seed = 0; seed < 8; ++seed) {
    for (const double skew : {0.0, 0.6, 1.5}) {
      const ExpertCounts counts{.num_layers = 5, .num_experts = 16};
      const RouteTrace trace = draw_routes(counts, {.top_k = 4, .skew = skew, .repeat = 0.2, .follow = 0.5}, 40, seed);
      for (const int frames : {1, 3, 4, 7, 20, 61, 80, 200}) {
        const int64_t most = replay_optimum(trace, frames).num_hits;
        for (const EvictionRule rule : kRules) {
          EXPECT_LE(replay_rule(trace, frames, rule).num_hits, most)
              << name_of(rule) << ", seed " << seed << ", skew " << skew << ", frames " << frames;
        }
      }
    }
  }
}

TEST(CacheReplay, HitsAllButTheFirstTimesWhereEverythingFits) {
  const RouteTrace trace = draw_routes({.num_layers = 3, .num_experts = 5}, {.top_k = 2}, 50, 1);
  const int64_t expected = trace.num_needs() - 15;  // all 15 are met in 50 steps
  for (const EvictionRule rule : kRules) EXPECT_EQ(replay_rule(trace, 15, rule).num_hits, expected);
  EXPECT_EQ(replay_optimum(trace, 15).num_hits, expected);
}

TEST(CacheReplay, RunsLayersInPartsThatNeedMoreThanThereIs) {
  const RouteTrace trace = one_layer({{0, 1, 2, 3, 4}, {0, 1, 2, 3, 4}}, 5);
  for (const EvictionRule rule : kRules) EXPECT_EQ(replay_rule(trace, 2, rule).num_hits, 2);
  EXPECT_EQ(replay_optimum(trace, 2).num_hits, 2);
}

TEST(CacheReplay, LetsAnOracleReadTheNextLayersExpertsWhileALayerRuns) {
  // Two layers in turn, and four frames: each set of two pushes out what was there before the last one.
  RouteTrace trace{{.num_layers = 2, .num_experts = 8}, {}};
  for (int32_t step = 0; step < 4; ++step) {
    for (const int layer : {0, 1}) trace.sets.push_back({layer, {2 * step, 2 * step + 1}});
  }
  // No expert comes twice, so that nothing but foresight hits: 2 of the 7 later sets' experts each, or 1 where one is read.
  constexpr EvictionRule kRule = EvictionRule::kLeastRecent;
  EXPECT_EQ(replay_oracle(trace, 4, kRule, 0).num_hits, 0);
  EXPECT_EQ(replay_oracle(trace, 4, kRule, 1).num_hits, 7);
  EXPECT_EQ(replay_oracle(trace, 4, kRule, 2).num_hits, 14);
  EXPECT_EQ(replay_oracle(trace, 4, kRule, 100).num_hits, 14);
  // Of two frames the layer that runs holds both; of three, one is left.
  EXPECT_EQ(replay_oracle(trace, 2, kRule, 2).num_hits, 0);
  EXPECT_EQ(replay_oracle(trace, 3, kRule, 2).num_hits, 7);
  EXPECT_EQ(replay_oracle(trace, 4, kRule, 2).num_needs, 16);
}

TEST(CacheReplay, KeepsWhatTheOracleKnowsToBeNeeded) {
  // Two frames hold 0 and 1 of layer 0; layer 1's expert pushes out the least recent of them.
  RouteTrace trace{{.num_layers = 2, .num_experts = 8}, {}};
  trace.sets = {{0, {0, 1}}, {1, {5}}, {0, {0, 1}}};
  EXPECT_EQ(replay_oracle(trace, 2, EvictionRule::kLeastRecent, 0).num_hits, 1);
  EXPECT_EQ(replay_oracle(trace, 2, EvictionRule::kLeastRecent, 1).num_hits, 1) << "both frames are held while 5 runs";
  // A third takes 5 in time, and layer 0 finds both again.
  EXPECT_EQ(replay_oracle(trace, 3, EvictionRule::kLeastRecent, 0).num_hits, 2);
  EXPECT_EQ(replay_oracle(trace, 3, EvictionRule::kLeastRecent, 1).num_hits, 3);
}

TEST(CacheReplay, TakesAnEmptyTrace) {
  const RouteTrace trace = one_layer({}, 3);
  EXPECT_EQ(replay_rule(trace, 1, EvictionRule::kLeastRecent).hit_rate(), 0.0);
  EXPECT_EQ(replay_optimum(trace, 1).hit_rate(), 0.0);
  EXPECT_EQ(replay_transitions(trace).recall(), 0.0);
}

TEST(ExpertTransitions, NamesWhatFollowed) {
  ExpertTransitions transitions({.num_layers = 3, .num_experts = 4});
  const auto step = [&](int32_t first, int32_t second, int32_t third) {
    transitions.observe(0, {{first}});
    transitions.observe(1, {{second}});
    transitions.observe(2, {{third}});
  };
  step(0, 1, 2);
  step(0, 1, 2);
  step(3, 1, 0);
  transitions.observe(0, {{0}});
  EXPECT_EQ(transitions.likely(1, 4), std::vector<int32_t>{1});
  transitions.observe(1, {{1}});
  // Layer 1 speaks for 2 by two thirds and for 0 by one, layer 0 for 2 alone.
  EXPECT_EQ(transitions.likely(2, 4), (std::vector<int32_t>{2, 0}));
  EXPECT_EQ(transitions.likely(2, 1), std::vector<int32_t>{2});
  EXPECT_TRUE(transitions.likely(0, 4).empty()) << "nothing comes before the first layer";
}

TEST(ExpertTransitions, RecallsRoutesThatFollowOneAnother) {
  const ExpertCounts counts{.num_layers = 4, .num_experts = 16};
  const RouteLaw bound{.top_k = 2, .skew = 0.0, .repeat = 0.0, .follow = 1.0};
  const RouteLaw free{.top_k = 2, .skew = 0.0, .repeat = 0.0, .follow = 0.0};
  EXPECT_GT(replay_transitions(draw_routes(counts, bound, 300, 3)).recall(), 0.9);
  EXPECT_LT(replay_transitions(draw_routes(counts, free, 300, 3)).recall(), 0.3);
}

}  // namespace
}  // namespace skipper
