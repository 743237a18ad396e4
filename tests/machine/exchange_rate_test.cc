#include "machine/exchange_rate.h"

#include <gtest/gtest.h>

#include <mutex>

#include "tests/support/spawn_ranks.h"

namespace skipper {
namespace {

TEST(ExchangeRate, IsTheSameOnAllRanksOfWhichTwoExchange) {
  std::mutex mutex;
  std::vector<std::vector<double>> seen;
  spawn_ranks(3, [&](Communicator& data) {
    const std::vector<double> seconds =
        exchange_seconds(data, {.pair = {0, 2}, .num_bytes = 4097, .num_rounds = 3, .num_samples = 5});
    const std::lock_guard lock(mutex);
    seen.push_back(seconds);
  });
  ASSERT_EQ(seen.size(), 3u);
  EXPECT_EQ(seen[0].size(), 5u);
  EXPECT_EQ(seen[0], seen[1]);
  EXPECT_EQ(seen[0], seen[2]);
  for (const double seconds : seen[0]) EXPECT_GT(seconds, 0.0);
}

}  // namespace
}  // namespace skipper
