#include "planning/slowest_rank.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace skipper {
namespace {

constexpr int kDrawnTokens = 256;

double fraction(std::mt19937& generator) { return static_cast<double>(generator()) * 0x1p-32; }

// The experts in a random order; std::shuffle is another on another standard library.
void shuffle(std::vector<size_t>& order, std::mt19937& generator) {
  for (size_t last = order.size(); last > 1; --last) {
    std::swap(order[last - 1], order[static_cast<size_t>(fraction(generator) * static_cast<double>(last))]);
  }
}

double slowest(const std::vector<double>& seconds_of_rank) { return std::ranges::max(seconds_of_rank); }

std::vector<double> mean_seconds(std::span<const ExpertTime> experts, int num_ranks) {
  std::vector<double> seconds(static_cast<size_t>(num_ranks));
  for (const ExpertTime& one : experts) seconds[static_cast<size_t>(one.rank)] += one.use * one.seconds;
  return seconds;
}

// Systematic sampling: the experts lie one after the other, each as long as its use; a comb with teeth 1 apart is laid on them.
double draw_slowest(std::span<const ExpertTime> experts, const std::vector<size_t>& order, double first_tooth,
                    std::vector<double>& seconds_of_rank) {
  std::ranges::fill(seconds_of_rank, 0.0);
  double end = 0.0, tooth = first_tooth;
  for (const size_t place : order) {
    const ExpertTime& one = experts[place];
    end += one.use;
    if (tooth >= end) continue;
    seconds_of_rank[static_cast<size_t>(one.rank)] += one.seconds;
    tooth += 1.0;
  }
  return slowest(seconds_of_rank);
}

}  // namespace

double mean_slowest_seconds(std::span<const ExpertTime> experts, int num_ranks, std::mt19937& generator) {
  std::vector<double> seconds_of_rank = mean_seconds(experts, num_ranks);
  const double least = slowest(seconds_of_rank);
  if (num_ranks == 1) return least;
  std::vector<size_t> order(experts.size());
  std::iota(order.begin(), order.end(), size_t{0});
  double sum = 0.0;
  for (int token = 0; token < kDrawnTokens; ++token) {
    shuffle(order, generator);
    sum += draw_slowest(experts, order, fraction(generator), seconds_of_rank);
  }
  return std::max(least, sum / kDrawnTokens);  // never under the slowest mean, whatever was drawn
}

}  // namespace skipper
