#include "frontend/token_outbox.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

namespace skipper {
namespace {

TEST(TokenOutbox, WakesOnceForEventsThatNobodyHasTaken) {
  TokenOutbox outbox(8);
  int num_wakeups = 0;
  outbox.set_wakeup([&] { ++num_wakeups; });
  EXPECT_TRUE(outbox.push({.choice = 0, .event = {}}));
  EXPECT_TRUE(outbox.push({.choice = 1, .event = {}}));
  EXPECT_EQ(num_wakeups, 1);
  EXPECT_EQ(outbox.take_all().size(), 2u);
  EXPECT_TRUE(outbox.take_all().empty());
  EXPECT_TRUE(outbox.push({.choice = 2, .event = {}}));
  EXPECT_EQ(num_wakeups, 2);
}

TEST(TokenOutbox, WakesAtOnceWhenEventsCameBeforeTheReader) {
  TokenOutbox outbox(8);
  outbox.push({.choice = 0, .event = {}});
  bool woken = false;
  outbox.set_wakeup([&] { woken = true; });
  EXPECT_TRUE(woken);
}

TEST(TokenOutbox, RefusesMoreEventsThanTheRequestCanHave) {
  TokenOutbox outbox(1);
  EXPECT_TRUE(outbox.push({.choice = 0, .event = {}}));
  EXPECT_FALSE(outbox.push({.choice = 0, .event = {}}));
}

TEST(TokenOutbox, KeepsNothingAndWakesNobodyAfterClose) {
  TokenOutbox outbox(8);
  int num_wakeups = 0;
  outbox.set_wakeup([&] { ++num_wakeups; });
  outbox.close();
  EXPECT_FALSE(outbox.push({.choice = 0, .event = {}}));
  EXPECT_TRUE(outbox.take_all().empty());
  EXPECT_EQ(num_wakeups, 0);
}

TEST(TokenOutbox, LosesNoEventBetweenTwoThreads) {
  constexpr int kEvents = 2000;
  TokenOutbox outbox(kEvents);
  std::thread engine([&] { for (int i = 0; i < kEvents; ++i) outbox.push({.choice = i, .event = {}}); });
  int expected = 0;
  while (expected < kEvents) {
    for (const ChoiceEvent& event : outbox.take_all()) EXPECT_EQ(event.choice, expected++);
  }
  engine.join();
}

}  // namespace
}  // namespace skipper
