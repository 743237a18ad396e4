#include "residency/route_trace.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "residency/expert_transitions.h"

namespace skipper {
namespace {

bool holds(const std::vector<int32_t>& experts, int32_t expert) { return std::ranges::find(experts, expert) != experts.end(); }

// Draws the experts of one layer after those of the token before and of the layer before.
class RouteDraw {
 public:
  RouteDraw(const ExpertCounts& counts, const RouteLaw& law, uint32_t seed)
      : counts_(counts), law_(law), generator_(seed), last_(static_cast<size_t>(counts.num_layers)) {
    std::vector<double> weights(static_cast<size_t>(counts.num_experts));
    for (size_t rank = 0; rank < weights.size(); ++rank) weights[rank] = std::pow(static_cast<double>(rank + 1), -law.skew);
    rank_ = std::discrete_distribution<int>(weights.begin(), weights.end());
    for (int layer = 0; layer < counts.num_layers; ++layer) {
      by_rank_.push_back(shuffled());
      follower_.push_back(shuffled());
    }
  }

  RouteSet next(int layer, const std::vector<int32_t>& layer_before) {
    const auto l = static_cast<size_t>(layer);
    const auto wanted = static_cast<size_t>(std::min(law_.top_k, counts_.num_experts));
    RouteSet set{layer, {}};
    for (const int32_t expert : last_[l]) {
      if (chance(law_.repeat)) set.experts.push_back(expert);
    }
    for (const int32_t before : layer_before) {
      const int32_t expert = follower_[l][static_cast<size_t>(before)];
      if (set.experts.size() < wanted && chance(law_.follow) && !holds(set.experts, expert)) set.experts.push_back(expert);
    }
    while (set.experts.size() < wanted) {
      const int32_t expert = by_rank_[l][static_cast<size_t>(rank_(generator_))];
      if (!holds(set.experts, expert)) set.experts.push_back(expert);
    }
    std::ranges::sort(set.experts);
    last_[l] = set.experts;
    return set;
  }

 private:
  bool chance(double share) { return std::uniform_real_distribution<double>()(generator_) < share; }

  std::vector<int32_t> shuffled() {
    std::vector<int32_t> experts(static_cast<size_t>(counts_.num_experts));
    std::iota(experts.begin(), experts.end(), 0);
    std::ranges::shuffle(experts, generator_);
    return experts;
  }

  ExpertCounts counts_;
  RouteLaw law_;
  std::mt19937 generator_;
  std::discrete_distribution<int> rank_;
  std::vector<std::vector<int32_t>> by_rank_;   // [layer][rank in use]
  std::vector<std::vector<int32_t>> follower_;  // [layer][expert of the layer before]
  std::vector<std::vector<int32_t>> last_;      // [layer]
};

double share_of(int64_t part, int64_t whole) { return whole == 0 ? 0.0 : static_cast<double>(part) / static_cast<double>(whole); }

// Slope of log(use) over log(rank + 1), mean over the layers, by least squares over the experts that were used.
double skew_of(const RouteTrace& trace) {
  std::vector<std::vector<double>> uses(static_cast<size_t>(trace.counts.num_layers));
  for (auto& layer : uses) layer.resize(static_cast<size_t>(trace.counts.num_experts));
  for (const RouteSet& set : trace.sets) {
    for (const int32_t expert : set.experts) uses[static_cast<size_t>(set.layer)][static_cast<size_t>(expert)] += 1.0;
  }
  double xx = 0.0, xy = 0.0;
  for (auto& layer : uses) {
    std::erase(layer, 0.0);
    std::ranges::sort(layer, std::ranges::greater{});
    double mean_x = 0.0, mean_y = 0.0;
    for (size_t rank = 0; rank < layer.size(); ++rank) {
      mean_x += std::log(static_cast<double>(rank + 1)) / static_cast<double>(layer.size());
      mean_y += std::log(layer[rank]) / static_cast<double>(layer.size());
    }
    for (size_t rank = 0; rank < layer.size(); ++rank) {
      const double x = std::log(static_cast<double>(rank + 1)) - mean_x;
      xx += x * x;
      xy += x * (std::log(layer[rank]) - mean_y);
    }
  }
  return xx == 0.0 ? 0.0 : -xy / xx;
}

}  // namespace

int64_t RouteTrace::num_needs() const {
  int64_t sum = 0;
  for (const RouteSet& set : sets) sum += static_cast<int64_t>(set.experts.size());
  return sum;
}

RouteTrace draw_routes(const ExpertCounts& counts, const RouteLaw& law, int64_t num_steps, uint32_t seed) {
  RouteDraw draw(counts, law, seed);
  RouteTrace trace{counts, {}};
  for (int64_t step = 0; step < num_steps; ++step) {
    std::vector<int32_t> before;
    for (int layer = 0; layer < counts.num_layers; ++layer) {
      trace.sets.push_back(draw.next(layer, before));
      before = trace.sets.back().experts;
    }
  }
  return trace;
}

RouteLaw law_of(const RouteTrace& trace) {
  RouteLaw law{.top_k = 0, .skew = skew_of(trace), .repeat = 0.0, .follow = 0.0};
  std::vector<std::vector<int32_t>> last(static_cast<size_t>(trace.counts.num_layers));
  ExpertTransitions transitions(trace.counts);
  int64_t num_repeated = 0, num_repeatable = 0, num_followed = 0, num_new = 0;
  for (const RouteSet& set : trace.sets) {
    law.top_k = std::max(law.top_k, static_cast<int>(set.experts.size()));
    std::vector<int32_t>& before = last[static_cast<size_t>(set.layer)];
    const std::vector<int32_t> named = transitions.likely(set.layer, set.experts.size());
    for (const int32_t expert : set.experts) {
      num_repeatable += before.empty() ? 0 : 1;
      num_repeated += holds(before, expert) ? 1 : 0;
      if (named.empty() || holds(before, expert)) continue;
      ++num_new;
      num_followed += holds(named, expert) ? 1 : 0;
    }
    transitions.observe(set.layer, set.experts);
    before = set.experts;
  }
  law.repeat = share_of(num_repeated, num_repeatable);
  law.follow = share_of(num_followed, num_new);
  return law;
}

}  // namespace skipper
