#include "evaluation/frontier_methods.h"

#include <algorithm>
#include <sstream>

#include "base/error.h"
#include "base/json_fields.h"

namespace skipper {
namespace {

constexpr float kProtectedShare = 0.02f;  // of a prompt's tokens, as MC-MoE
constexpr const char* kLadderMethod = "gmlg_dmt";

// One threshold for both classes, at equal shares of all pairs.
std::vector<MethodPoint> single_thresholds(const SkipScores& scores, int count) {
  std::vector<MethodPoint> points;
  const ScoreDistribution pooled = scores.pooled();
  for (int i = 1; i <= count && !pooled.is_empty(); ++i) {
    const auto tau = static_cast<float>(pooled.quantile(static_cast<double>(i) / static_cast<double>(count + 1)));
    if (points.empty() || tau > points.back().parameter) points.push_back({tau, score_point(scores.alpha, tau, tau)});
  }
  return points;
}

std::vector<MethodPoint> plain_thresholds(const MethodInputs& inputs) {
  return single_thresholds(inputs.equal, inputs.num_points);
}

std::vector<MethodPoint> layer_weighted_thresholds(const MethodInputs& inputs) {
  return single_thresholds(inputs.calibrated, inputs.num_points);
}

// k − ½, k − 1, ... 1: half a pair is one pair more for every second token.
std::vector<MethodPoint> fewer_experts(const MethodInputs& inputs) {
  std::vector<MethodPoint> points;
  for (float kept = static_cast<float>(inputs.top_k) - 0.5f; kept >= 1.0f; kept -= 0.5f) {
    OperatingPoint point = score_point(inputs.equal.alpha, 0.0f, 0.0f);
    point.pair_rule = PairRule::kTopK;
    point.kept_k = {kept, kept};
    points.push_back({kept, std::move(point)});
  }
  return points;
}

std::vector<MethodPoint> fewer_experts_renormalized(const MethodInputs& inputs) {
  std::vector<MethodPoint> points = fewer_experts(inputs);
  for (MethodPoint& point : points) point.point.renormalize = true;
  return points;
}

// The least likely experts of a token whose weights together stay under a share.
std::vector<MethodPoint> tail_masses(const MethodInputs& inputs) {
  std::vector<MethodPoint> points;
  for (int i = 1; i <= inputs.num_points; ++i) {
    const float beta = static_cast<float>(i) / static_cast<float>(inputs.num_points + 1);
    OperatingPoint point = score_point(inputs.equal.alpha, 0.0f, 0.0f);
    point.pair_rule = PairRule::kTailMass;
    for (size_t c = 0; c < kNumSkippableClasses; ++c) point.beta[c].assign(point.alpha[c].size(), beta);
    points.push_back({beta, std::move(point)});
  }
  return points;
}

// NAEE's rule, which MC-MoE protects important tokens from.
std::vector<MethodPoint> tail_masses_with_protection(const MethodInputs& inputs) {
  std::vector<MethodPoint> points = tail_masses(inputs);
  for (MethodPoint& one : points) {
    one.point.renormalize = true;
    one.point.protect_attention = kProtectedShare;
  }
  return points;
}

// DiEP's threshold is the layer's median of p_2 / p_1, times how alike two experts are; multiples of it reach more and less.
std::vector<MethodPoint> similar_experts(const MethodInputs& inputs) {
  std::vector<MethodPoint> points;
  for (int i = 1; i <= inputs.num_points; ++i) {
    const float multiple = static_cast<float>(i) / static_cast<float>(inputs.num_points + 1 - i);
    OperatingPoint point = score_point(inputs.equal.alpha, 0.0f, 0.0f);
    point.pair_rule = PairRule::kSimilar;
    point.beta = inputs.ratings->second_share;
    for (std::vector<float>& betas : point.beta) {
      for (float& beta : betas) beta *= multiple;
    }
    point.expert_similarity = inputs.ratings->similarity;
    points.push_back({multiple, std::move(point)});
  }
  return points;
}

// Low by both views of the expert, as ACE skips; the first always stays.
std::vector<MethodPoint> thresholds_of_both_views(const MethodInputs& inputs) {
  std::vector<MethodPoint> points = plain_thresholds(inputs);
  for (MethodPoint& one : points) {
    one.point.expert_scale = inputs.ratings->scale();
    one.point.protect_top1 = true;
  }
  return points;
}

const SkipScores& plain_scores(const MethodInputs& inputs) { return inputs.equal; }
const SkipScores& calibrated_scores(const MethodInputs& inputs) { return inputs.calibrated; }

ThresholdLists score_thresholds(const SkipScores& scores, int count) {
  return {threshold_grid(scores.scores[0], count), threshold_grid(scores.scores[1], count)};
}

// A destination's score is alpha · Σ p², and (alpha · p)² / alpha for one pair: what thresholds of pairs make of it. The highest
// takes every destination: Σ p² is at most 1.
ThresholdLists destination_thresholds(const SkipScores& scores, int count) {
  ThresholdLists lists = score_thresholds(scores, count);
  for (size_t c = 0; c < kNumSkippableClasses; ++c) {
    const auto num_layers = static_cast<float>(scores.alpha[c].size());
    for (float& threshold : lists[c]) threshold *= threshold * num_layers;
  }
  return lists;
}

// Shares of a token's whole mass.
ThresholdLists mass_thresholds(const SkipScores&, int count) {
  ThresholdLists lists;
  for (std::vector<float>& list : lists) {
    for (int i = 0; i <= count; ++i) list.push_back(static_cast<float>(i) / static_cast<float>(count));
  }
  return lists;
}

OperatingPoint pair_point(const SkipScores& scores, const ClassThresholds& tau) {
  return score_point(scores.alpha, tau[0], tau[1]);
}

OperatingPoint local_exempt_point(const SkipScores& scores, const ClassThresholds& tau) {
  OperatingPoint point = pair_point(scores, tau);
  point.exempt_local = true;
  return point;
}

OperatingPoint destination_point(const SkipScores& scores, const ClassThresholds& tau_dst) {
  OperatingPoint point = score_point(scores.alpha, 0.0f, 0.0f);
  for (size_t c = 0; c < kNumSkippableClasses; ++c) {
    for (const Hop hop : {Hop::kNode, Hop::kNetwork}) point.tau_dst[c][static_cast<size_t>(hop)] = tau_dst[c];
  }
  return point;
}

OperatingPoint mass_point(const SkipScores& scores, const ClassThresholds& beta) {
  OperatingPoint point = score_point(scores.alpha, 0.0f, 0.0f);
  point.pair_rule = PairRule::kTailMass;
  for (size_t c = 0; c < kNumSkippableClasses; ++c) point.beta[c].assign(point.alpha[c].size(), beta[c]);
  return point;
}

std::vector<FrontierMethod> make_table() {
  constexpr auto kFamily = MethodKind::kFamily;
  constexpr auto kSearched = MethodKind::kSearched;
  const SearchedRule plain{plain_scores, score_thresholds, pair_point, false, true};
  const SearchedRule calibrated{calibrated_scores, score_thresholds, pair_point, false, true};
  const SearchedRule adaptive{plain_scores, mass_thresholds, mass_point};
  const SearchedRule local_exempt{calibrated_scores, score_thresholds, local_exempt_point, false, true};
  const SearchedRule destination{calibrated_scores, destination_thresholds, destination_point, true};
  return {
      {"reduced_k", "reduced k", "experts kept", kFamily, fewer_experts},
      {"reduced_k_renormalized", "reduced k, renormalised", "experts kept", kFamily, fewer_experts_renormalized},
      {"single", "one threshold on p", "threshold", kFamily, plain_thresholds},
      {"tail_mass", "tail mass (NAEE)", "mass", kFamily, tail_masses},
      {"adaptive_k", "tail mass by class (adaptive k)", "target", kSearched, nullptr, adaptive},
      {"mc_moe", "tail mass, renormalised, 2 % of tokens protected (MC-MoE)", "mass", kFamily, tail_masses_with_protection},
      {"diep", "relative to the first and to likeness with it (DiEP)", "multiple", kFamily, similar_experts, {}, 1, true},
      {"ace", "one threshold on p by two views of the expert (ACE's kind)", "threshold", kFamily, thresholds_of_both_views, {}, 1,
       true},
      {"gmlg", "GMLG: one threshold on alpha p", "threshold", kFamily, layer_weighted_thresholds},
      {"dmt", "DMT: text and vision thresholds on p", "target", kSearched, nullptr, plain, 1, false, true},
      {"local_exempt", "GMLG + DMT, local pairs spared", "target", kSearched, nullptr, local_exempt, 2},
      {"destination", "destination rule", "target", kSearched, nullptr, destination, 2},
      {kLadderMethod, "GMLG + DMT, calibrated alpha", "target", kSearched, nullptr, calibrated, 1, false, true},
  };
}

FrontierMethod find_method(const std::string& name) {
  std::vector<std::string> names;
  for (const FrontierMethod& method : frontier_methods()) {
    if (method.name == name) return method;
    names.push_back(method.name);
  }
  const auto nearest = nearest_name(name, names);
  std::string known;
  for (const std::string& one : names) known += (known.empty() ? "" : ", ") + one;
  throw InvalidRequest("methods: unknown method '" + name + "'" + (nearest ? "; did you mean '" + *nearest + "'?" : "") +
                           "; there are " + known + ", or all",
                       "methods");
}

}  // namespace

ScoreDistribution SkipScores::pooled() const {
  std::vector<ScoreCount> all;
  for (const ScoreDistribution& one : scores) all.insert(all.end(), one.scores().begin(), one.scores().end());
  return ScoreDistribution(std::move(all));
}

const std::vector<FrontierMethod>& frontier_methods() {
  static const std::vector<FrontierMethod> table = make_table();
  return table;
}

const FrontierMethod& ladder_method() { return frontier_methods().back(); }

std::vector<FrontierMethod> parse_methods(const std::string& text) {
  if (text == "all") return frontier_methods();
  std::vector<FrontierMethod> chosen;
  std::istringstream names(text);
  for (std::string name; std::getline(names, name, ',');) {
    if (name != kLadderMethod) chosen.push_back(find_method(name));
  }
  chosen.push_back(ladder_method());
  return chosen;
}

std::vector<FrontierMethod> methods_for_ranks(std::vector<FrontierMethod> methods, int num_ranks) {
  std::erase_if(methods, [num_ranks](const FrontierMethod& method) { return method.least_ranks > num_ranks; });
  return methods;
}

std::vector<std::string> remove_methods_by_ratings(std::vector<FrontierMethod>& methods) {
  std::vector<std::string> names;
  for (const FrontierMethod& method : methods) {
    if (method.needs_ratings) names.push_back(method.name);
  }
  std::erase_if(methods, [](const FrontierMethod& method) { return method.needs_ratings; });
  return names;
}

OperatingPoint score_point(const ClassAlpha& alpha, float tau_text, float tau_vision) {
  OperatingPoint point;
  point.alpha = alpha;
  point.tau = {tau_text, tau_vision};
  return point;
}

}  // namespace skipper
