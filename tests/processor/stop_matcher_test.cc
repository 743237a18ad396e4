#include "processor/stop_matcher.h"

#include <gtest/gtest.h>

#include <random>

#include "base/error.h"

namespace skipper {
namespace {

// The text before the first stop string to be complete, by looking at every end and every stop.
StopMatcher::Result naive_search(const std::vector<std::string>& stops, const std::string& text) {
  for (size_t end = 0; end <= text.size(); ++end) {
    size_t longest = 0;
    for (const std::string& stop : stops) {
      if (stop.size() <= end && text.compare(end - stop.size(), stop.size(), stop) == 0) {
        longest = std::max(longest, stop.size());
      }
    }
    if (longest > 0) return {text.substr(0, end - longest), true};
  }
  return {text, false};
}

// Pushes `text` cut behind byte i where bit i of `cuts` is set.
StopMatcher::Result push_in_chunks(const std::vector<std::string>& stops, const std::string& text, uint32_t cuts) {
  StopMatcher matcher(stops);
  StopMatcher::Result total;
  size_t begin = 0;
  for (size_t i = 0; i < text.size() && !total.stopped; ++i) {
    const bool is_cut = i + 1 == text.size() || (cuts >> i & 1) != 0;
    if (!is_cut) continue;
    const StopMatcher::Result piece = matcher.push(text.substr(begin, i + 1 - begin));
    total.text += piece.text;
    total.stopped = piece.stopped;
    begin = i + 1;
  }
  const std::string rest = matcher.flush();
  EXPECT_TRUE(!total.stopped || rest.empty());
  total.text += rest;
  return total;
}

TEST(StopMatcher, PassesEverythingOnWithoutStops) {
  StopMatcher matcher({});
  EXPECT_EQ(matcher.push("any text").text, "any text");
  EXPECT_EQ(matcher.push("").text, "");
  EXPECT_EQ(matcher.flush(), "");
}

TEST(StopMatcher, HoldsBackOnlyWhatMayBecomeAStop) {
  StopMatcher matcher({"\n\nUser:"});
  EXPECT_EQ(matcher.push("Hello\n").text, "Hello");
  EXPECT_EQ(matcher.push("\n").text, "");
  EXPECT_EQ(matcher.push("\n").text, "\n");
  EXPECT_EQ(matcher.push("U").text, "");
  EXPECT_EQ(matcher.push("x").text, "\n\nUx");
  EXPECT_EQ(matcher.push("end\n").text, "end");
  EXPECT_EQ(matcher.flush(), "\n");
}

TEST(StopMatcher, CutsTheTextBeforeTheStopAndSwallowsTheRest) {
  StopMatcher matcher({"STOP"});
  EXPECT_FALSE(matcher.push("a ST").stopped);
  const StopMatcher::Result hit = matcher.push("OP and more");
  EXPECT_TRUE(hit.stopped);
  EXPECT_EQ(hit.text, "");
  EXPECT_TRUE(matcher.push("more").stopped);
  EXPECT_EQ(matcher.push("more").text, "");
  EXPECT_EQ(matcher.flush(), "");
}

TEST(StopMatcher, RefusesAnEmptyStopByName) {
  try {
    StopMatcher({"x", ""});
    FAIL() << "accepted";
  } catch (const InvalidRequest& e) {
    EXPECT_EQ(e.param(), "stop[1]");
  }
}

TEST(StopMatcher, FindsWhatANaiveSearchFindsForEveryChunking) {
  std::mt19937 random(3);
  const auto random_text = [&](size_t min_length, size_t max_length) {
    std::string text(std::uniform_int_distribution<size_t>(min_length, max_length)(random), 'a');
    for (char& c : text) c = static_cast<char>('a' + random() % 2);
    return text;
  };
  size_t num_stopped = 0;
  for (int round = 0; round < 400; ++round) {
    std::vector<std::string> stops(round % 5);
    for (std::string& stop : stops) stop = random_text(1, 6);
    const std::string text = random_text(0, 9);
    const StopMatcher::Result expected = naive_search(stops, text);
    num_stopped += expected.stopped ? 1 : 0;
    for (uint32_t cuts = 0; cuts < 1u << text.size(); ++cuts) {
      const StopMatcher::Result result = push_in_chunks(stops, text, cuts);
      ASSERT_EQ(result.text, expected.text) << text << " " << testing::PrintToString(stops);
      ASSERT_EQ(result.stopped, expected.stopped) << text << " " << testing::PrintToString(stops);
    }
  }
  EXPECT_GT(num_stopped, 100u);
}

TEST(StopMatcher, StaysLinearOnLongRunsThatNearlyMatch) {
  const std::string nearly(5000, 'a');
  StopMatcher matcher({nearly + "b"});
  std::string text;
  for (int i = 0; i < 200; ++i) text += matcher.push(nearly).text;
  text += matcher.flush();
  EXPECT_EQ(text.size(), 200u * nearly.size());
}

}  // namespace
}  // namespace skipper
