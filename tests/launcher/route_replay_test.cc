#include "launcher/route_replay.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "launcher/recorded_routes.h"

namespace skipper {
namespace {

using testing::HasSubstr;

class RecordedRoutesTest : public testing::Test {
 protected:
  ~RecordedRoutesTest() override { std::filesystem::remove(path_); }

  void write(const std::vector<RoutingRecord>& records, int num_moe_layers = 2) const {
    AuditHeader header;
    header.model_fingerprint = "00000000000000aa";
    header.num_moe_layers = num_moe_layers;
    header.num_experts = 8;
    header.node_of_rank = {0};
    std::ofstream file(path_, std::ios::binary);
    file << to_line(header);
    for (const RoutingRecord& record : records) file << to_line(record);
  }

  static RoutingRecord record(int layer, std::vector<int32_t> experts, std::vector<bool> kept,
                              TokenPhase phase = TokenPhase::kPrompt) {
    RoutingRecord one;
    one.layer = one.moe_layer = layer;
    one.phase = phase;
    one.weights.assign(experts.size(), 0.5f);
    one.experts = std::move(experts);
    one.kept = std::move(kept);
    one.destinations = {0};
    return one;
  }

  RouteTrace read(RoutesOf whose) const {
    AuditReader reader(path_);
    return read_routes(reader, whose);
  }

  std::string refusal(RoutesOf whose) const {
    try {
      read(whose);
    } catch (const InvalidFile& error) {
      return error.what();
    }
    return "";
  }

  const std::filesystem::path path_ =
      std::filesystem::current_path() / ("recorded_routes_test_" + std::to_string(::getpid()) + ".jsonl");
};

TEST_F(RecordedRoutesTest, JoinsTheTokensOfALayerAndLeavesSkippedPairsOut) {
  write({record(0, {5, 2}, {true, true}), record(0, {2, 7}, {true, false}), record(1, {1, 3}, {false, true}),
         record(0, {4, 5}, {true, true}, TokenPhase::kGenerated), record(1, {6, 0}, {true, true}, TokenPhase::kGenerated)});
  const RouteTrace all = read(RoutesOf::kAllTokens);
  EXPECT_EQ(all.counts.num_layers, 2);
  EXPECT_EQ(all.counts.num_experts, 8);
  ASSERT_EQ(all.sets.size(), 4u);
  EXPECT_EQ(all.sets[0].experts, (std::vector<int32_t>{2, 5}));
  EXPECT_EQ(all.sets[1].layer, 1);
  EXPECT_EQ(all.sets[1].experts, std::vector<int32_t>{3});
  const RouteTrace generated = read(RoutesOf::kGeneratedTokens);
  ASSERT_EQ(generated.sets.size(), 2u);
  EXPECT_EQ(generated.sets[0].experts, (std::vector<int32_t>{4, 5}));
  EXPECT_EQ(generated.sets[1].experts, (std::vector<int32_t>{0, 6}));
}

TEST_F(RecordedRoutesTest, RefusesFilesWithoutRoutes) {
  write({});
  EXPECT_THAT(refusal(RoutesOf::kAllTokens), HasSubstr("no routes of any tokens follow; record some with --audit_file"));
  write({record(0, {1}, {true})});
  EXPECT_THAT(refusal(RoutesOf::kGeneratedTokens), HasSubstr("no routes of generated tokens"));
  write({record(0, {1}, {true})}, 1);
  EXPECT_THAT(refusal(RoutesOf::kAllTokens), HasSubstr("a model with 1 MoE layer"));
}

std::string usage_error(const std::string& sizes, size_t expert_bytes) {
  try {
    parse_cache_sizes(sizes, expert_bytes);
  } catch (const UsageError& error) {
    return error.what();
  }
  return "";
}

TEST(CacheSizes, AreExpertsOrBytes) {
  EXPECT_EQ(parse_cache_sizes("24,3", 0).num_experts, (std::vector<int>{24, 3}));
  EXPECT_EQ(parse_cache_sizes("2K,7", 500).num_experts, (std::vector<int>{4, 7}));
  EXPECT_THAT(usage_error("2K", 0), HasSubstr("--cache: '2K' is in bytes; give --model"));
  EXPECT_THAT(usage_error("2K", 2001), HasSubstr("'2K' holds no expert, of which one takes 2001 bytes"));
  EXPECT_THAT(usage_error("0", 0), HasSubstr("'0' is out of range; expected 1 to "));
  EXPECT_THAT(usage_error("99999999999999999999", 0), HasSubstr("is out of range"));
  EXPECT_THAT(usage_error("4,", 0), HasSubstr("'' is no size of memory"));
  EXPECT_THAT(usage_error("-4", 0), HasSubstr("'-4' is no size"));
  EXPECT_THAT(usage_error("some", 0), HasSubstr("'some' is no size of memory; write 2G, 512M, 1.5T or 24Gi, or a number of e"));
}

// Layers A and B in turn, two frames. Needs: A0, B0, A1, B0, A0, B0.
RouteTrace written_out() {
  RouteTrace trace{{.num_layers = 2, .num_experts = 2}, {}};
  trace.sets = {{0, {0}}, {1, {0}}, {0, {1}}, {1, {0}}, {0, {0}}, {1, {0}}};
  return trace;
}

TEST(RouteForecast, CountsAWrittenOutCase) {
  const RouteForecast result = forecast(written_out(), {.num_experts = {2}, .expert_bytes = 1000});
  EXPECT_EQ(result.num_runs, 6);
  EXPECT_EQ(result.num_needs, 6);
  const CacheForecast& cache = result.caches.at(0);
  // Least recent: A1 pushes A0 out, B0 hits, A0 pushes A1 out, B0 hits.
  EXPECT_EQ(cache.rules[0].num_hits, 2);
  // Least frequent: the same, as B0 is used most.
  EXPECT_EQ(cache.rules[1].num_hits, 2);
  // The best keeps A0 and B0 and gives A1 up at once: B0 hits twice, A0 once.
  EXPECT_EQ(cache.optimum.num_hits, 3);
  // An oracle reads A1 while B0 runs, and so on: all but the first hit.
  EXPECT_EQ(cache.oracles[0].num_hits, 5);
  EXPECT_EQ(cache.oracles[3].num_hits, 5);
}

TEST(RouteForecast, IsShownAsTableAndAsJson) {
  const RouteForecast result = forecast(written_out(), {.num_experts = {2, 4}, .expert_bytes = 1000});
  const std::string table = to_table(result);
  EXPECT_THAT(table, HasSubstr("2 MoE layers of 2 experts; 6 runs of a layer with 1.0 experts each"));
  EXPECT_THAT(table, testing::ContainsRegex("2 experts, .* +33.3 +33.3 +[0-9.]+ +50.0 +83.3"));
  const nlohmann::json json = nlohmann::json::parse(to_json(result));
  EXPECT_EQ(json["caches"].size(), 2u);
  EXPECT_NEAR(json["caches"][0]["hit_rate"]["lru"].get<double>(), 2.0 / 6, 1e-12);
  EXPECT_NEAR(json["caches"][0]["hit_rate"]["belady"].get<double>(), 3.0 / 6, 1e-12);
  EXPECT_NEAR(json["caches"][0]["oracle"]["all"].get<double>(), 5.0 / 6, 1e-12);
  EXPECT_EQ(json["expert_bytes"], 1000);
  EXPECT_TRUE(nlohmann::json::parse(to_json(forecast(written_out(), {.num_experts = {1}})))["expert_bytes"].is_null());
}

}  // namespace
}  // namespace skipper
