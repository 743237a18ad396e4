#include "tenancy/tenant_member.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <memory>
#include <numeric>
#include <random>

#include "base/error.h"
#include "tenancy/tenant_report.h"

namespace skipper {
namespace {

constexpr int64_t kMegabyte = 1'000'000;

class TenantMemberTest : public testing::Test {
 protected:
  TenantMemberTest() {
    const std::string name = testing::UnitTest::GetInstance()->current_test_info()->name();
    folder_ = std::filesystem::path(testing::TempDir()) / ("tenants_" + name + std::to_string(getpid()));
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
    write_ledger(600, 60);
  }
  ~TenantMemberTest() override { std::filesystem::remove_all(folder_); }

  std::filesystem::path path() const { return folder_ / "tenants.json"; }

  void write_ledger(int64_t megabytes, int wait_seconds) {
    std::ofstream(path()) << R"({"version": 1, "memory": ")" << megabytes << R"(M", "wait_seconds": )" << wait_seconds
                          << R"(, "tenants": [{"name": "a"}, {"name": "b"}, {"name": "c", "weight": 200}, {"name": "d"}]})";
  }

  std::unique_ptr<TenantMember> join(const std::string& name, int64_t needs = 100, int64_t demand = 500, bool can_replan = true) {
    const TenantNeeds bytes{needs * kMegabyte, demand * kMegabyte, can_replan};
    return std::make_unique<TenantMember>(path(), name, bytes, std::vector<int64_t>{getpid()});
  }

  std::vector<PresentTenant> present() const {
    const TenantRegistry registry(path());
    const FileLock lock = registry.lock_to_read();
    return registry.present();
  }

  int64_t held_by_all() const {
    int64_t sum = 0;
    for (const PresentTenant& tenant : present()) sum += tenant.state.held;
    return sum;
  }

  std::filesystem::path folder_;
};

// Changes its memory at once, as a server does that has no experts to move.
void follow(TenantMember& member) {
  if (const auto size = member.wanted()) member.settle(*size);
}

void expect_no_wait(const TenantWait& wait) { ADD_FAILURE() << "waits for " << wait.missing; }

TEST_F(TenantMemberTest, ANewcomerWaitsUntilTheOthersHaveGivenItsShareBack) {
  const auto a = join("a");
  EXPECT_EQ(a->wait_for_share(expect_no_wait), 500 * kMegabyte);
  EXPECT_EQ(a->wanted(), std::nullopt);
  const auto b = join("b");
  int num_waits = 0;
  const int64_t share = b->wait_for_share([&](const TenantWait& wait) {
    EXPECT_EQ(wait.share, 300 * kMegabyte);
    EXPECT_EQ(wait.missing, 200 * kMegabyte);
    EXPECT_GT(wait.left.count(), 0);
    EXPECT_EQ(held_by_all(), 500 * kMegabyte);
    if (++num_waits == 3) {
      EXPECT_EQ(a->wanted(), 300 * kMegabyte);
      a->settle(300 * kMegabyte);
    }
  });
  EXPECT_EQ(num_waits, 3);
  EXPECT_EQ(share, 300 * kMegabyte);
  EXPECT_EQ(held_by_all(), 600 * kMegabyte);
}

TEST_F(TenantMemberTest, ThoseWhoStayGetWhatALeaverHad) {
  const auto a = join("a");
  a->wait_for_share(expect_no_wait);
  auto b = join("b");
  b->wait_for_share([&](const TenantWait&) { follow(*a); });
  b.reset();
  EXPECT_EQ(a->wanted(), 500 * kMegabyte);
  EXPECT_EQ(a->held(), 500 * kMegabyte);  // before it takes it
}

TEST_F(TenantMemberTest, WhoWaitsTooLongIsRefused) {
  write_ledger(600, 0);
  const auto a = join("a");
  a->wait_for_share(expect_no_wait);
  const auto b = join("b");
  try {
    b->wait_for_share(expect_no_wait);
    FAIL();
  } catch (const ResourceExhausted& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("tenant 'b': short by 200.0 MB of its share of 300.0 MB"));
  }
  EXPECT_EQ(a->held(), 500 * kMegabyte);
}

TEST_F(TenantMemberTest, ThereIsOneServerOfATenant) {
  const auto a = join("a");
  try {
    join("a");
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("tenant 'a' is already served, by process " + std::to_string(getpid())));
  }
  EXPECT_THROW(join("e"), InvalidFile);
}

TEST_F(TenantMemberTest, WhoCannotReplanKeepsItsShareWhoeverComes) {
  const auto a = join("a", 100, 500, false);
  EXPECT_EQ(a->wait_for_share(expect_no_wait), 120 * kMegabyte);  // beside b, d and twice c
  std::vector<std::unique_ptr<TenantMember>> others;
  for (const char* name : {"b", "c", "d"}) {
    others.push_back(join(name));
    others.back()->wait_for_share([&](const TenantWait&) {
      for (const auto& other : others) {
        if (other != others.back()) follow(*other);
      }
    });
    EXPECT_EQ(a->wanted(), std::nullopt);
  }
  EXPECT_EQ(held_by_all(), 600 * kMegabyte);
}

TEST_F(TenantMemberTest, ALedgerThatCannotBeReadChangesNothing) {
  const auto a = join("a");
  a->wait_for_share(expect_no_wait);
  std::ofstream(path()) << "{";
  EXPECT_EQ(a->wanted(), std::nullopt);
  write_ledger(90, 60);  // less than it needs
  EXPECT_EQ(a->wanted(), std::nullopt);
  write_ledger(200, 60);
  EXPECT_EQ(a->wanted(), 200 * kMegabyte);
  EXPECT_EQ(a->held(), 500 * kMegabyte);  // until it has given it back
}

TEST_F(TenantMemberTest, AKilledServerLeavesNothingBehind) {
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t child = fork();
  if (child == 0) {
    const auto a = join("a");
    a->wait_for_share([](const TenantWait&) {});
    const char done = 'x';
    if (write(ready[1], &done, 1) != 1) _exit(1);
    pause();
    _exit(0);
  }
  char done = 0;
  ASSERT_EQ(read(ready[0], &done, 1), 1);
  ASSERT_EQ(present().size(), 1u);
  EXPECT_EQ(present()[0].state.held, 500 * kMegabyte);
  EXPECT_THROW(join("a"), Error);
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  EXPECT_TRUE(present().empty());
  EXPECT_EQ(join("a")->wait_for_share(expect_no_wait), 500 * kMegabyte);
}

// Whatever the order in which servers come, go, look and change, the memory is never exceeded; in the end all have their shares.
TEST_F(TenantMemberTest, TheSumNeverExceedsTheMemoryWhateverTheOrder) {
  std::mt19937 random(23);
  const std::vector<std::string> names = {"a", "b", "c", "d"};
  std::vector<std::unique_ptr<TenantMember>> members(names.size());
  std::vector<std::optional<int64_t>> changing(names.size());
  const auto step = [&](size_t i) {
    if (!changing[i]) {
      changing[i] = members[i]->wanted();
    } else {
      members[i]->settle(*std::exchange(changing[i], std::nullopt));
    }
  };
  for (int round = 0; round < 400; ++round) {
    const size_t i = random() % names.size();
    if (!members[i]) {
      members[i] = join(names[i], 100, 100 + static_cast<int64_t>(random() % 400));
    } else if (random() % 8 == 0) {
      members[i].reset();
      changing[i].reset();
    } else {
      step(i);
    }
    ASSERT_LE(held_by_all(), 600 * kMegabyte) << "round " << round;
  }
  for (int round = 0; round < 40; ++round) {
    if (const size_t i = static_cast<size_t>(round) % names.size(); members[i]) step(i);
    ASSERT_LE(held_by_all(), 600 * kMegabyte);
  }
  const std::vector<PresentTenant> all = present();
  const std::vector<int64_t> shares = shares_of(load_tenant_ledger(path()), all);
  for (size_t i = 0; i < all.size(); ++i) EXPECT_EQ(all[i].state.held, shares[i]) << all[i].name;
}

TEST_F(TenantMemberTest, TheReportShowsSharesUseAndFairness) {
  const TenantLedger ledger = load_tenant_ledger(path());
  EXPECT_FALSE(report_tenants(ledger, present()).is_exceeded());
  const auto a = join("a");
  a->wait_for_share(expect_no_wait);
  const auto c = join("c");
  const TenantReport report = report_tenants(ledger, present());
  ASSERT_EQ(report.rows.size(), 4u);
  EXPECT_EQ(report.rows[0].share, 200 * kMegabyte);
  EXPECT_EQ(report.rows[0].state->held, 500 * kMegabyte);
  EXPECT_EQ(report.rows[2].share, 400 * kMegabyte);
  EXPECT_FALSE(report.rows[1].state);
  EXPECT_GT(report.rows[0].used, kMegabyte);  // this process
  EXPECT_FALSE(report.is_exceeded());
  const std::string table = table_of(report);
  EXPECT_THAT(table, testing::HasSubstr("shrinking"));
  EXPECT_THAT(table, testing::HasSubstr("waiting"));
  EXPECT_THAT(table, testing::HasSubstr("absent"));
  EXPECT_THAT(table, testing::HasSubstr("of 600.0 MB: shares 600.0 MB, held 500.0 MB"));
  EXPECT_THAT(table, testing::HasSubstr("Jain's index: 1.0000 of shares by weight"));
}

TEST_F(TenantMemberTest, TheReportFindsWhoUsesMoreThanItsShare) {
  const auto a = join("a", 1, 1);
  a->wait_for_share(expect_no_wait);
  const TenantReport report = report_tenants(load_tenant_ledger(path()), present());
  EXPECT_TRUE(report.rows[0].is_over());
  EXPECT_TRUE(report.is_exceeded());
  EXPECT_THAT(table_of(report), testing::HasSubstr("OVER ITS SHARE"));
}

}  // namespace
}  // namespace skipper
