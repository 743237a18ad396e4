#include "metrics/metrics_registry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <sstream>
#include <thread>

namespace skipper {
namespace {

using ::testing::HasSubstr;

TEST(MetricsRegistry, EverySampleHasHelpAndTypeAbove) {
  MetricsRegistry registry("demo", 4);
  registry.record_http_request("/live", 200);
  std::set<std::string> helped, typed;
  std::istringstream lines(registry.text());
  int num_samples = 0;
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string hash, keyword, name;
    if (line.starts_with("# ")) {
      words >> hash >> keyword >> name;
      (keyword == "HELP" ? helped : typed).insert(name);
      continue;
    }
    name = line.substr(0, line.find_first_of("{ "));
    for (const char* suffix : {"_bucket", "_sum", "_count"}) {
      const std::string base = name.ends_with(suffix) ? name.substr(0, name.size() - std::string(suffix).size()) : name;
      if (typed.count(base) != 0) name = base;
    }
    EXPECT_EQ(helped.count(name), 1u) << line;
    EXPECT_EQ(typed.count(name), 1u) << line;
    ++num_samples;
  }
  EXPECT_GT(num_samples, 200);
  EXPECT_EQ(typed.size(), 30u);
}

TEST(MetricsRegistry, ReportsLoadsByLayerAndClass) {
  MetricsRegistry registry("demo", 2);
  registry.set_loads({.rank_max_over_mean = 1.5, .num_alarms = 3, .layers = {{4, "vision", 1.25, 0.125, 0.5}}});
  const std::string text = registry.text();
  EXPECT_THAT(text, HasSubstr("skipper_step_load_max_over_mean{model_name=\"demo\"} 1.5"));
  EXPECT_THAT(text, HasSubstr("skipper_imbalance_alarms_total{model_name=\"demo\"} 3"));
  const std::string labels = "{model_name=\"demo\",layer=\"4\",token_class=\"vision\"}";
  EXPECT_THAT(text, HasSubstr("skipper_rank_load_max_over_mean" + labels + " 1.25"));
  EXPECT_THAT(text, HasSubstr("skipper_rank_load_gini" + labels + " 0.125"));
  EXPECT_THAT(text, HasSubstr("skipper_expert_load_gini" + labels + " 0.5"));
}

TEST(MetricsRegistry, ReportsWhatTheFrontendRecorded) {
  MetricsRegistry registry("demo", 1);
  registry.record_prompt(11);
  registry.record_prompt(2);
  registry.record_first_token(0.25);
  registry.record_token_interval(0.01);
  registry.record_generated_tokens(7);
  registry.record_finished_request("stop", 0.5);
  registry.record_http_request("/v1/chat/completions", 429);
  const std::string text = registry.text();
  EXPECT_THAT(text, HasSubstr("vllm:prompt_tokens_total{model_name=\"demo\"} 13"));
  EXPECT_THAT(text, HasSubstr("vllm:generation_tokens_total{model_name=\"demo\"} 7"));
  EXPECT_THAT(text, HasSubstr("vllm:request_success_total{model_name=\"demo\",finished_reason=\"stop\"} 1"));
  EXPECT_THAT(text, HasSubstr("vllm:request_success_total{model_name=\"demo\",finished_reason=\"length\"} 0"));
  EXPECT_THAT(text, HasSubstr("vllm:time_to_first_token_seconds_count{model_name=\"demo\"} 1"));
  EXPECT_THAT(text, HasSubstr("vllm:time_to_first_token_seconds_bucket{model_name=\"demo\",le=\"+Inf\"} 1"));
  EXPECT_THAT(text, HasSubstr("skipper_http_requests_total{path=\"/v1/chat/completions\",status=\"429\"} 1"));
}

TEST(MetricsRegistry, ReportsTrafficByHopClassAndDirection) {
  MetricsRegistry registry("demo", 3);
  TrafficTotals totals;
  totals.payload_bytes[0][1][0] = 1024;    // dispatch, node, text
  totals.saved_bytes[1][2][1] = 77;        // combine, network, vision
  totals.wire_bytes[1][0] = 5;             // combine, local
  totals.pairs_on_shadows[1] = 9;
  registry.set_traffic(totals);
  registry.set_engine_gauges({.num_running = 2, .num_waiting = 1, .kv_cache_usage = 0.5});
  const std::string text = registry.text();
  EXPECT_THAT(text, HasSubstr("skipper_payload_bytes_total{model_name=\"demo\",hop=\"node\",token_class=\"text\","
                              "direction=\"dispatch\"} 1024"));
  EXPECT_THAT(text, HasSubstr("skipper_saved_bytes_total{model_name=\"demo\",hop=\"network\",token_class=\"vision\","
                              "direction=\"combine\"} 77"));
  EXPECT_THAT(text, HasSubstr("skipper_wire_bytes_total{model_name=\"demo\",hop=\"local\",direction=\"combine\"} 5"));
  EXPECT_THAT(text, HasSubstr("skipper_pairs_on_shadows_total{model_name=\"demo\",token_class=\"vision\"} 9"));
  EXPECT_THAT(text, HasSubstr("vllm:num_requests_running{model_name=\"demo\"} 2"));
  EXPECT_THAT(text, HasSubstr("vllm:kv_cache_usage_perc{model_name=\"demo\"} 0.5"));
  EXPECT_THAT(text, HasSubstr("skipper_rank_count{model_name=\"demo\"} 3"));
}

TEST(MetricsRegistry, SumsPairsByLayerPhaseClassAndOutcome) {
  MetricsRegistry registry("demo", 1);
  std::vector<int64_t> counts(3 * 2 * 3 * 2);  // layers, phases, classes, outcomes
  counts[((2 * 2 + 1) * 3 + 0) * 2 + 1] = int64_t{1} << 40;
  counts[((0 * 2 + 0) * 3 + 2) * 2 + 0] = 4;
  registry.record_pairs(counts);
  registry.record_pairs(counts);
  const std::string text = registry.text();
  EXPECT_THAT(text, HasSubstr("skipper_pairs_total{model_name=\"demo\",layer=\"2\",phase=\"generated\",token_class=\"text\","
                              "outcome=\"skipped\"} 2199023255552"));
  EXPECT_THAT(text, HasSubstr("layer=\"0\",phase=\"prompt\",token_class=\"protected\",outcome=\"run\"} 8"));
  EXPECT_THAT(text, HasSubstr("layer=\"2\",phase=\"prompt\",token_class=\"protected\",outcome=\"run\"} 0"));
}

TEST(MetricsRegistry, ReportsWhereSkippingIsSwitchedOff) {
  MetricsRegistry registry("demo", 2);
  const std::vector<SkipSwitchGauge> switches = {{}, {}, {true, 0.5, 0.25}, {}};
  registry.set_skip_switches(switches, 7);
  const std::string text = registry.text();
  const auto has = [&](const std::string& line) { return text.find(line + "\n") != std::string::npos; };
  EXPECT_TRUE(has("skipper_skipping_switched_off{model_name=\"demo\",layer=\"1\",phase=\"prompt\"} 1")) << text;
  EXPECT_TRUE(has("skipper_skipping_switched_off{model_name=\"demo\",layer=\"1\",phase=\"generated\"} 0"));
  EXPECT_TRUE(has("skipper_deciding_seconds{model_name=\"demo\",layer=\"1\",phase=\"prompt\"} 0.5"));
  EXPECT_TRUE(has("skipper_deciding_saved_seconds{model_name=\"demo\",layer=\"1\",phase=\"prompt\"} 0.25"));
  EXPECT_TRUE(has("skipper_skip_switches_total{model_name=\"demo\"} 7"));
}

TEST(MetricsRegistry, ReportsPoliciesWhereThereAreSome) {
  MetricsRegistry registry("demo", 2);
  EXPECT_THAT(registry.text(), testing::Not(HasSubstr("skipper_policy")));
  registry.set_policy({.policy = "small", .version = 4, .num_switches = 3, .num_failures = 2, .moved_bytes = 1000,
                       .staging_seconds = 1.5});
  const std::string text = registry.text();
  for (const char* line : {"info{model_name=\"demo\",policy=\"small\"} 1", "version{model_name=\"demo\"} 4",
                           "switches_total{model_name=\"demo\"} 3", "failures_total{model_name=\"demo\"} 2",
                           "moved_bytes_total{model_name=\"demo\"} 1000", "staging_seconds_total{model_name=\"demo\"} 1.5"}) {
    EXPECT_NE(text.find(std::string("skipper_policy_") + line + "\n"), std::string::npos) << line << " in\n" << text;
  }
}

TEST(MetricsRegistry, ReportsAGuardWhereThereIsOne) {
  MetricsRegistry registry("demo", 2);
  EXPECT_THAT(registry.text(), testing::Not(HasSubstr("skipper_guard")));
  registry.set_guard({.is_on = true, .serves_reference = true, .relative_error = 0.125, .worst_over_allowed = 2.5,
                      .mean_kl = 0.25, .num_rows = 9, .num_scored_tokens = 7, .num_rollbacks = 1});
  const std::string text = registry.text();
  for (const char* line : {"serves_reference{model_name=\"demo\"} 1", "relative_error{model_name=\"demo\"} 0.125",
                           "worst_over_allowed{model_name=\"demo\"} 2.5", "kl{model_name=\"demo\"} 0.25",
                           "rows_total{model_name=\"demo\"} 9", "scored_tokens_total{model_name=\"demo\"} 7",
                           "rollbacks_total{model_name=\"demo\"} 1"}) {
    EXPECT_THAT(text, HasSubstr(std::string("skipper_guard_") + line));
  }
}

TEST(MetricsRegistry, ReportsExpertsOnDiskByRankAndTierWhereThereAreSome) {
  MetricsRegistry registry("demo", 2);
  EXPECT_THAT(registry.text(), testing::Not(HasSubstr("skipper_disk")));
  const std::vector<DiskTotals> disks = {
      {}, {.num_in_memory = 90, .num_hits = 7, .num_late = 2, .num_misses = 5, .num_foreseen = 4, .num_used = 3, .num_wasted = 1,
           .num_bytes = int64_t{1} << 40, .busy_seconds = 2.5, .exposed_seconds = 1.25, .num_cached = 24, .foresees = true,
           .num_times_off = 6}};
  registry.set_disks(disks);
  const std::string text = registry.text();
  const std::string rank = "{model_name=\"demo\",rank=\"1\"";
  for (const std::string& line : {
           "expert_needs_total" + rank + ",tier=\"memory\",outcome=\"hit\"} 90",
           "expert_needs_total" + rank + ",tier=\"disk\",outcome=\"hit\"} 7",
           "expert_needs_total" + rank + ",tier=\"disk\",outcome=\"late\"} 2",
           "expert_needs_total" + rank + ",tier=\"disk\",outcome=\"miss\"} 5",
           "disk_foreseen_total" + rank + "} 4",
           "disk_foreseen_ended_total" + rank + ",outcome=\"used\"} 3",
           "disk_foreseen_ended_total" + rank + ",outcome=\"wasted\"} 1",
           "disk_read_bytes_total" + rank + "} 1099511627776",
           "disk_busy_seconds_total" + rank + "} 2.5",
           "disk_exposed_seconds_total" + rank + "} 1.25",
           "disk_cache_experts" + rank + "} 24",
           "disk_foresight" + rank + "} 1",
           "disk_foresight_turned_off_total" + rank + "} 6",
           std::string("disk_read_bytes_total{model_name=\"demo\",rank=\"0\"} 0")}) {
    EXPECT_THAT(text, HasSubstr("skipper_" + line));
  }
}

TEST(MetricsRegistry, ReportsTheLevelThatRequestsFollow) {
  MetricsRegistry registry("demo", 1);
  registry.set_engine_gauges({.level = 3, .num_level_changes = 5});
  EXPECT_THAT(registry.text(), HasSubstr("skipper_level{model_name=\"demo\"} 3"));
  EXPECT_THAT(registry.text(), HasSubstr("skipper_level_changes_total{model_name=\"demo\"} 5"));
}

TEST(MetricsRegistry, CountsTheStepsThatRanTwice) {
  MetricsRegistry registry("demo", 1);
  registry.set_engine_gauges({.num_dispatch_reruns = 7});
  EXPECT_THAT(registry.text(), HasSubstr("skipper_dispatch_reruns_total{model_name=\"demo\"} 7"));
}

TEST(MetricsRegistry, EscapesAModelNameThatHoldsQuotes) {
  const MetricsRegistry registry("a\"b\\c", 1);
  EXPECT_THAT(registry.text(), HasSubstr("model_name=\"a\\\"b\\\\c\""));
}

TEST(MetricsRegistry, CountsFromSeveralThreads) {
  MetricsRegistry registry("demo", 1);
  std::thread engine([&] { for (int i = 0; i < 500; ++i) registry.record_step(0.001); });
  for (int i = 0; i < 20; ++i) EXPECT_FALSE(registry.text().empty());
  engine.join();
  EXPECT_THAT(registry.text(), HasSubstr("skipper_steps_total{model_name=\"demo\"} 500"));
}

}  // namespace
}  // namespace skipper
