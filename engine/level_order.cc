#include "engine/level_order.h"

#include <algorithm>

namespace skipper {
namespace {

// score · alpha < threshold holds for no score of the first that it does not hold for with the second.
bool reaches_no_further(float threshold, float alpha, float other_threshold, float other_alpha) {
  if (threshold <= 0.0f) return true;
  if (other_threshold <= 0.0f) return false;
  return double{threshold} * double{other_alpha} <= double{other_threshold} * double{alpha};
}

// Of one class: what is compared with thresholds on alpha · score in every layer.
struct ScoreReach {
  std::span<const float> alpha;
  float threshold;

  bool is_within(const ScoreReach& other) const {
    for (size_t layer = 0; layer < alpha.size(); ++layer) {
      if (!reaches_no_further(threshold, alpha[layer], other.threshold, other.alpha[layer])) return false;
    }
    return true;
  }
};

float generated_tau(const OperatingPoint& point) { return point.tau_generated.value_or(point.tau[0]); }

bool scores_reach_no_further(const OperatingPoint& gentle, const OperatingPoint& harsh) {
  const auto reach = [](const OperatingPoint& point, size_t c, float tau) { return ScoreReach{point.alpha[c], tau}; };
  for (size_t c = 0; c < kNumSkippableClasses; ++c) {
    if (!reach(gentle, c, gentle.tau[c]).is_within(reach(harsh, c, harsh.tau[c]))) return false;
  }
  return reach(gentle, 0, generated_tau(gentle)).is_within(reach(harsh, 0, generated_tau(harsh)));
}

// 0 keeps all.
bool keep_as_many(const OperatingPoint& gentle, const OperatingPoint& harsh) {
  const auto keeps_as_many = [](float kept, float other) { return kept == 0.0f || (other > 0.0f && kept >= other); };
  return std::ranges::equal(gentle.kept_k, harsh.kept_k, keeps_as_many);
}

bool betas_are_no_larger(const OperatingPoint& gentle, const OperatingPoint& harsh) {
  for (size_t c = 0; c < kNumSkippableClasses; ++c) {
    for (size_t layer = 0; layer < gentle.beta[c].size(); ++layer) {
      const float other = harsh.beta[c].empty() ? 0.0f : harsh.beta[c][layer];
      if (gentle.beta[c][layer] > other) return false;
    }
  }
  return true;
}

bool pair_rule_reaches_no_further(const OperatingPoint& gentle, const OperatingPoint& harsh) {
  return scores_reach_no_further(gentle, harsh) && keep_as_many(gentle, harsh) && betas_are_no_larger(gentle, harsh);
}

bool destinations_reach_no_further(const OperatingPoint& gentle, const OperatingPoint& harsh) {
  for (size_t c = 0; c < kNumSkippableClasses; ++c) {
    for (size_t hop = 0; hop < kNumHops; ++hop) {
      const ScoreReach reach{gentle.alpha[c], gentle.tau_dst[c][hop]};
      if (!reach.is_within({harsh.alpha[c], harsh.tau_dst[c][hop]})) return false;
      if (reach.threshold > 0.0f && gentle.destination_score != harsh.destination_score) return false;
    }
  }
  return true;
}

bool protects_as_much(const OperatingPoint& gentle, const OperatingPoint& harsh) {
  return gentle.exempt_local >= harsh.exempt_local && gentle.protect_top1 >= harsh.protect_top1 &&
         gentle.protect_margin >= harsh.protect_margin;
}

// All fields that the functions above do not put in order.
bool has_same_rest(const OperatingPoint& gentle, const OperatingPoint& harsh) {
  OperatingPoint rest = harsh;
  rest.alpha = gentle.alpha;
  rest.tau = gentle.tau;
  rest.tau_generated = gentle.tau_generated;
  rest.kept_k = gentle.kept_k;
  rest.beta = gentle.beta;
  rest.tau_dst = gentle.tau_dst;
  rest.destination_score = gentle.destination_score;
  rest.exempt_local = gentle.exempt_local;
  rest.protect_top1 = gentle.protect_top1;
  rest.protect_margin = gentle.protect_margin;
  return rest == gentle;
}

}  // namespace

bool skips_no_more(const OperatingPoint& gentle, const OperatingPoint& harsh) {
  if (gentle.skips_nothing()) return true;
  return pair_rule_reaches_no_further(gentle, harsh) && destinations_reach_no_further(gentle, harsh) &&
         protects_as_much(gentle, harsh) && has_same_rest(gentle, harsh);
}

std::vector<uint16_t> places_of(std::span<const OperatingPoint> levels, size_t num_ladder_levels) {
  const std::span<const OperatingPoint> ladder = levels.first(std::min(num_ladder_levels, levels.size()));
  std::vector<uint16_t> places;
  for (size_t level = 0; level < levels.size(); ++level) {
    const auto as_harsh = [&](const OperatingPoint& other) { return skips_no_more(levels[level], other); };
    const auto found = level < ladder.size() ? ladder.begin() + static_cast<std::ptrdiff_t>(level)
                                             : std::ranges::find_if(ladder, as_harsh);
    places.push_back(static_cast<uint16_t>(found - ladder.begin()));
  }
  return places;
}

}  // namespace skipper
