#include "launcher/startup_agreement.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/support/spawn_ranks.h"

namespace skipper {
namespace {

std::string outcome_on_all(int num_ranks, const std::function<void(int rank)>& work) {
  std::vector<std::string> outcomes(static_cast<size_t>(num_ranks));
  spawn_ranks(num_ranks, [&](Communicator& comm) {
    try {
      run_together(comm, [&] { work(comm.rank()); });
      outcomes[static_cast<size_t>(comm.rank())] = "fine";
    } catch (const Error& e) {
      outcomes[static_cast<size_t>(comm.rank())] = e.what();
    }
  });
  for (const std::string& outcome : outcomes) EXPECT_EQ(outcome, outcomes[0]);
  return outcomes[0];
}

TEST(RunTogether, GoesOnWhenAllSucceed) {
  EXPECT_EQ(outcome_on_all(3, [](int) {}), "fine");
}

TEST(RunTogether, AnErrorOfOneRankIsThrownOnAllAndNamesTheRank) {
  const auto work = [](int rank) {
    if (rank == 2) throw InvalidFile("weights are gone");
  };
  EXPECT_EQ(outcome_on_all(3, work), "rank 2: weights are gone");
}

TEST(RunTogether, TheSameErrorEverywhereIsSaidOnceWithoutARank) {
  EXPECT_EQ(outcome_on_all(3, [](int) { throw InvalidFile("no such model"); }), "no such model");
}

TEST(RunTogether, ALongMessageIsCutNotLost) {
  const std::string text(5000, 'x');
  EXPECT_THAT(outcome_on_all(2, [&](int) { throw Error(text); }), testing::StartsWith("xxx"));
}

TEST(RequireSameEverywhere, NamesBothValues) {
  spawn_ranks(2, [](Communicator& comm) {
    EXPECT_NO_THROW(require_same_everywhere(comm, "settings", "same"));
    try {
      require_same_everywhere(comm, "settings", "of rank " + std::to_string(comm.rank()));
      ADD_FAILURE() << "different settings were accepted";
    } catch (const Error& e) {
      EXPECT_THAT(e.what(), testing::AllOf(testing::HasSubstr("settings"), testing::HasSubstr("of rank 0"),
                                           testing::HasSubstr("of rank 1")));
    }
  });
}

}  // namespace
}  // namespace skipper
