// How long a token waits for a layer whose experts several ranks compute at the same time.
#pragma once

#include <cstdint>
#include <random>
#include <span>

namespace skipper {

// One expert of a layer.
struct ExpertTime {
  int32_t rank = 0;
  double use = 0.0;      // share of the tokens that run on it
  double seconds = 0.0;  // when one does
};

// Seconds of the slowest rank, in the mean over tokens. A token's experts do not fall evenly: of 4 among 32 experts on 2 ranks,
// 2.7 are at the fuller one. On one rank the sum of use · seconds; otherwise by tokens that are drawn, each with as many experts
// as the uses add up to, each expert as often as it is used. `generator` goes on from layer to layer.
double mean_slowest_seconds(std::span<const ExpertTime> experts, int num_ranks, std::mt19937& generator);

}  // namespace skipper
