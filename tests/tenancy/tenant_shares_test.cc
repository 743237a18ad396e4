#include "tenancy/tenant_shares.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace skipper {
namespace {

constexpr int64_t kBytesPerMegabyte = 1'000'000;

TenantEntry entry(const std::string& name, int64_t weight, int64_t floor, int64_t ceiling) {
  return {name, weight, floor * kBytesPerMegabyte, ceiling * kBytesPerMegabyte};
}

PresentTenant tenant(const std::string& name, int64_t needs, int64_t demand, int64_t held = 0) {
  return {name,
          {.pids = {1},
           .needs = needs * kBytesPerMegabyte,
           .demand = demand * kBytesPerMegabyte,
           .held = held * kBytesPerMegabyte}};
}

TenantLedger ledger(int64_t memory, std::vector<TenantEntry> tenants) {
  return {.path = "tenants.json", .memory = memory * kBytesPerMegabyte, .tenants = std::move(tenants)};
}

std::vector<int64_t> megabytes(std::vector<int64_t> shares) {
  for (int64_t& share : shares) share /= kBytesPerMegabyte;
  return shares;
}

TEST(TenantShares, AreLentToThoseWhoAreThereUpToTheirDemand) {
  const TenantLedger all = ledger(600, {entry("a", 100, 0, 600), entry("b", 100, 200, 600), entry("c", 200, 0, 600)});
  EXPECT_EQ(megabytes(shares_of(all, {tenant("a", 100, 250)})), (std::vector<int64_t>{250}));
  EXPECT_EQ(megabytes(shares_of(all, {tenant("a", 100, 900)})), (std::vector<int64_t>{600}));
  EXPECT_EQ(megabytes(shares_of(all, {tenant("a", 100, 900), tenant("b", 100, 900)})), (std::vector<int64_t>{300, 300}));
  EXPECT_EQ(megabytes(shares_of(all, {tenant("a", 100, 900), tenant("b", 100, 900), tenant("c", 100, 900)})),
            (std::vector<int64_t>{133, 200, 266}));
}

TEST(TenantShares, KeepNeedsFloorsAndCeilings) {
  const TenantLedger all = ledger(600, {entry("a", 100, 0, 150), entry("b", 100, 300, 600), entry("c", 100, 0, 600)});
  EXPECT_EQ(megabytes(shares_of(all, {tenant("a", 100, 900), tenant("b", 100, 900), tenant("c", 100, 900)})),
            (std::vector<int64_t>{150, 300, 150}));
  // A floor beyond the demand is of no use.
  EXPECT_EQ(megabytes(shares_of(all, {tenant("b", 100, 120), tenant("c", 450, 900)})), (std::vector<int64_t>{120, 480}));
}

TEST(TenantShares, LeaveATenantThatIsNotInTheLedgerWhatItHolds) {
  const TenantLedger all = ledger(600, {entry("a", 100, 0, 600)});
  EXPECT_EQ(megabytes(shares_of(all, {tenant("a", 100, 900), tenant("gone", 50, 900, 200)})), (std::vector<int64_t>{400, 200}));
}

TEST(LastingShare, LeavesRoomForWhoeverComes) {
  const TenantLedger all = ledger(600, {entry("a", 100, 0, 600), entry("b", 100, 0, 100), entry("c", 100, 300, 600)});
  EXPECT_EQ(lasting_share(all, {}, tenant("a", 100, 900)) / kBytesPerMegabyte, 200);
  // Of what is present: what it needs, though its weight would give it less.
  EXPECT_EQ(lasting_share(all, {tenant("b", 180, 200)}, tenant("a", 100, 900)) / kBytesPerMegabyte, 120);
}

void expect_refusal(const TenantLedger& all, const std::vector<PresentTenant>& present, const PresentTenant& newcomer,
                    const std::string& expected) {
  try {
    require_admission(all, present, newcomer);
    ADD_FAILURE() << newcomer.name << " was admitted";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr(expected));
  }
}

TEST(Admission, KeepsTheFloorsOfAbsentTenants) {
  const TenantLedger all = ledger(600, {entry("a", 100, 0, 600), entry("b", 100, 0, 600), entry("c", 100, 205, 600)});
  require_admission(all, {}, tenant("a", 390, 900));
  expect_refusal(all, {}, tenant("a", 400, 900), "short by 5.0 MB");
  expect_refusal(all, {tenant("a", 210, 900, 600)}, tenant("b", 210, 900),
                 "those present 210.0 MB, the floors of absent ones 205.0 MB");
  // The one whose floor was kept comes in.
  require_admission(all, {tenant("a", 390, 900, 600)}, tenant("c", 205, 900));
}

TEST(Admission, RefusesATenantThatNeedsMoreThanItsCeiling) {
  expect_refusal(ledger(600, {entry("a", 100, 0, 200)}), {}, tenant("a", 230, 900), "30.0 MB more than its ceiling of 200.0 MB");
  expect_refusal(ledger(600, {entry("a", 100, 0, 200)}), {}, tenant("b", 230, 900), "there is no tenant 'b'");
}

}  // namespace
}  // namespace skipper
