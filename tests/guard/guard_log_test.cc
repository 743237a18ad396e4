#include "guard/guard_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "base/error.h"

namespace skipper {
namespace {

const GuardBreach kBreach{.measured = 0.5, .threshold = 0.2, .num_samples = 24, .rank = 1, .moe_layer = 2, .expert = 3};

TEST(GuardLog, ALineTellsWhatWasMeasuredAndWhatServesNow) {
  const GuardAction action{.step = 7, .term = 2, .from = {"plan.json", 4}, .to = {"reference", 0}, .breach = &kBreach};
  EXPECT_EQ(guard_line(action, "2026-01-01T00:00:00Z"),
            R"({"time":"2026-01-01T00:00:00Z","step":7,"term":2,"action":"rollback","from":{"name":"plan.json","version":4},)"
            R"("to":{"name":"reference","version":0},"kind":"expert_error","measured":0.5,"threshold":0.2,"samples":24,)"
            R"("rank":1,"moe_layer":2,"expert":3})");
}

TEST(GuardLog, AppendsALineForEachAction) {
  const std::filesystem::path file = std::filesystem::path(testing::TempDir()) / "guard_log_test.jsonl";
  std::filesystem::remove(file);
  GuardLog log(file);
  log.write({.step = 7, .breach = &kBreach});
  log.write({.kind = GuardActionKind::kArm, .step = 9});
  log.write({.kind = GuardActionKind::kReturn, .step = 12, .from = {"reference", 0}, .to = {"quality", 3}});
  std::ifstream in(file);
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  std::istringstream lines(text);
  for (const char* action : {"rollback", "arm", "return"}) {
    std::string line;
    ASSERT_TRUE(std::getline(lines, line)) << text;
    EXPECT_EQ(nlohmann::json::parse(line)["action"], action);
  }
}

TEST(GuardLog, RefusesAFileThatCannotBeWritten) { EXPECT_THROW(GuardLog("/nonexistent/guard.jsonl"), InvalidFile); }

}  // namespace
}  // namespace skipper
