#include "guard/guard_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace skipper {
namespace {

const GuardBreach kBreach{.measured = 0.5, .threshold = 0.2, .num_samples = 24, .rank = 1, .moe_layer = 2, .expert = 3};

TEST(GuardLog, ALineTellsWhatWasMeasuredAndWhatServesNow) {
  const GuardAction action{.step = 7, .from = {"plan.json", 4}, .to = {"reference", 0}, .breach = &kBreach};
  EXPECT_EQ(guard_line(action, "2026-01-01T00:00:00Z"),
            R"({"time":"2026-01-01T00:00:00Z","step":7,"action":"rollback","from":{"name":"plan.json","version":4},)"
            R"("to":{"name":"reference","version":0},"kind":"expert_error","measured":0.5,"threshold":0.2,"samples":24,)"
            R"("rank":1,"moe_layer":2,"expert":3})");
}

TEST(GuardLog, AppendsALineForEachAction) {
  const std::filesystem::path file = std::filesystem::path(testing::TempDir()) / "guard_log_test.jsonl";
  std::filesystem::remove(file);
  GuardLog log(file);
  log.write({.step = 7, .breach = &kBreach});
  log.write({.step = 9});
  std::ifstream in(file);
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  const size_t first_end = text.find('\n');
  EXPECT_EQ(nlohmann::json::parse(text.substr(0, first_end))["action"], "rollback");
  EXPECT_EQ(nlohmann::json::parse(text.substr(first_end))["action"], "arm");
}

TEST(GuardLog, RefusesAFileThatCannotBeWritten) { EXPECT_THROW(GuardLog("/nonexistent/guard.jsonl"), InvalidFile); }

}  // namespace
}  // namespace skipper
