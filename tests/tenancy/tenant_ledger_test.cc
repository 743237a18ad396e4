#include "tenancy/tenant_ledger.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "base/error.h"

namespace skipper {
namespace {

std::filesystem::path written(const std::string& text) {
  const std::filesystem::path path = std::filesystem::path(testing::TempDir()) / "tenant_ledger_test.json";
  std::ofstream(path) << text;
  return path;
}

TEST(TenantLedger, IsReadWithItsDefaults) {
  const TenantLedger ledger = load_tenant_ledger(written(R"({"version": 1, "memory": "64G", "tenants":
      [{"name": "chat", "weight": 200, "floor": "16G", "ceiling": "40G"}, {"name": "b.2"}]})"));
  EXPECT_EQ(ledger.memory, 64'000'000'000);
  EXPECT_EQ(ledger.patience.count(), 60);
  ASSERT_EQ(ledger.tenants.size(), 2u);
  EXPECT_EQ(ledger.at("chat").weight, 200);
  EXPECT_EQ(ledger.at("chat").floor, 16'000'000'000);
  EXPECT_EQ(ledger.at("chat").ceiling, 40'000'000'000);
  EXPECT_EQ(ledger.at("b.2").weight, 100);
  EXPECT_EQ(ledger.at("b.2").floor, 0);
  EXPECT_EQ(ledger.at("b.2").ceiling, 64'000'000'000);
  EXPECT_EQ(ledger.find("other"), nullptr);
}

struct Refusal {
  std::string text, expected;
};

TEST(TenantLedger, RefusesInOneLineThatNamesWhatIsWrong) {
  const auto of = [](const std::string& tenants) { return R"({"version": 1, "memory": "1G", "tenants": )" + tenants + "}"; };
  const Refusal refusals[] = {
      {"{", "tenant_ledger_test.json"},
      {R"({"memory": "1G", "tenants": [{"name": "a"}]})", "version"},
      {R"({"version": 1, "tenants": [{"name": "a"}]})", "memory"},
      {R"({"version": 1, "memory": "1GB", "tenants": [{"name": "a"}]})", "'1GB' is no size of memory"},
      {R"({"version": 1, "memory": "300T", "tenants": [{"name": "a"}]})", "which no host has"},
      {R"({"version": 1, "memory": "1G", "tenants": [{"name": "a"}], "wait_second": 2})", "did you mean 'wait_seconds'?"},
      {of("{}"), "expected a list of 1 to 64 tenants"},
      {of("[]"), "expected a list of 1 to 64 tenants"},
      {of(R"(["a"])"), "tenants[0]: expected a JSON object"},
      {of(R"([{"name": "a"}, {"name": "../b"}])"), "tenants[1]: name: '../b' is no name of a tenant"},
      {of(R"([{"name": ".a"}])"), "is no name of a tenant"},
      {of(R"([{"name": "a"}, {"name": "a"}])"), "there are two tenants 'a'"},
      {of(R"([{"name": "a", "weight": 0}])"), "tenants[0]: weight"},
      {of(R"([{"name": "a", "weight": -3}])"), "tenants[0]: weight"},
      {of(R"([{"name": "a", "weight": 10001}])"), "tenants[0]: weight"},
      {of(R"([{"name": "a", "share": 1}])"), "tenants[0]: share: unknown key"},
      {of(R"([{"name": "a", "floor": "2G"}])"), "is above the ceiling of 1.00 GB"},
      {of(R"([{"name": "a", "floor": "600M"}, {"name": "b", "floor": "500M"}])"), "lower floors by 100.0 MB"},
  };
  for (const Refusal& refusal : refusals) {
    try {
      load_tenant_ledger(written(refusal.text));
      ADD_FAILURE() << refusal.text << " was taken";
    } catch (const InvalidFile& error) {
      EXPECT_THAT(error.what(), testing::HasSubstr(refusal.expected)) << refusal.text;
      EXPECT_THAT(error.what(), testing::HasSubstr("tenant_ledger_test.json")) << refusal.text;
    }
  }
  EXPECT_THROW(load_tenant_ledger("/nonexistent/tenants.json"), InvalidFile);
}

TEST(TenantLedger, NamesItsTenantsToWhoAsksForAnother) {
  const TenantLedger ledger =
      load_tenant_ledger(written(R"({"version": 1, "memory": "1G", "tenants": [{"name": "a"}, {"name": "b"}]})"));
  try {
    ledger.at("c");
    FAIL();
  } catch (const InvalidFile& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("there is no tenant 'c'; its tenants are a, b"));
  }
}

}  // namespace
}  // namespace skipper
