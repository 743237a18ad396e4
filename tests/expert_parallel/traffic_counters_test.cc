#include "expert_parallel/traffic_counters.h"

#include <gtest/gtest.h>

namespace skipper {
namespace {

TrafficCounters sample() {
  TrafficCounters counters;
  counters.payload_bytes[0][1][2] = 3;
  counters.payload_bytes[1][1][0] = 4;
  counters.payload_bytes[1][2][1] = 50;
  counters.saved_bytes[1][2][1] = 5;
  counters.wire_bytes[0][2] = 7;
  counters.pairs_run[2] = 11;
  counters.pairs_skipped[1] = 13;
  return counters;
}

TEST(TrafficCounters, AddsEveryField) {
  TrafficCounters sum = sample();
  sum += sample();
  EXPECT_EQ(sum.payload_bytes[0][1][2], 6);
  EXPECT_EQ(sum.saved_bytes[1][2][1], 10);
  EXPECT_EQ(sum.wire_bytes[0][2], 14);
  EXPECT_EQ(sum.pairs_run[2], 22);
  EXPECT_EQ(sum.pairs_skipped[1], 26);
}

TEST(TrafficCounters, SubtractsEveryField) {
  TrafficCounters sum = sample();
  sum += sample();
  const TrafficCounters difference = sum - sample();
  EXPECT_EQ(difference.payload_bytes, sample().payload_bytes);
  EXPECT_EQ(difference.saved_bytes, sample().saved_bytes);
  EXPECT_EQ(difference.wire_bytes, sample().wire_bytes);
  EXPECT_EQ(difference.pairs_run, sample().pairs_run);
  EXPECT_EQ(difference.pairs_skipped, sample().pairs_skipped);
}

TEST(TrafficCounters, SumsPayloadOfAHopOverDirectionsAndClasses) {
  EXPECT_EQ(sample().total_payload_bytes(Hop::kLocal), 0);
  EXPECT_EQ(sample().total_payload_bytes(Hop::kNode), 7);
  EXPECT_EQ(sample().total_payload_bytes(Hop::kNetwork), 50);
}

}  // namespace
}  // namespace skipper
