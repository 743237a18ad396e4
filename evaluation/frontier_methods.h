// The ways to skip that a frontier compares: each a family of operating points of one parameter, or one that is searched.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "cluster/operating_point.h"
#include "evaluation/expert_ratings.h"
#include "evaluation/threshold_grid.h"

namespace skipper {

using ClassAlpha = std::array<std::vector<float>, kNumSkippableClasses>;  // [class][MoE layer]
using ClassScores = std::array<ScoreDistribution, kNumSkippableClasses>;

// What calibration knows of a model: how much its layers matter, and the scores that its pairs have.
struct SkipScores {
  ClassAlpha alpha;
  ClassScores scores;  // of alpha · p

  // The scores of all classes together, for one threshold over both.
  ScoreDistribution pooled() const;
};

struct MethodInputs {
  SkipScores calibrated;  // alpha as it was calibrated
  SkipScores equal;       // alpha = 1 / layers: scores are plain routing weights
  int top_k = 1;
  int num_points = 8;     // of a family with a continuous parameter
  std::optional<ExpertRatings> ratings = {};  // what methods with needs_ratings need
};

enum class MethodKind {
  kFamily,    // points of one parameter
  kSearched,  // text and vision thresholds by search_frontier
};

struct MethodPoint {
  float parameter = 0.0f;
  OperatingPoint point;
};

// The thresholds of each class that a search tries, ascending from 0.
using ThresholdLists = std::array<std::vector<float>, kNumSkippableClasses>;

// The two thresholds of one point.
using ClassThresholds = std::array<float, kNumSkippableClasses>;

// How a searched method becomes operating points.
struct SearchedRule {
  const SkipScores& (*scores)(const MethodInputs&) = nullptr;
  ThresholdLists (*thresholds)(const SkipScores&, int count) = nullptr;
  OperatingPoint (*point)(const SkipScores&, const ClassThresholds&) = nullptr;
  bool is_destination_rule = false;  // has no other thresholds of destinations beside its own
  bool has_generated_threshold = false;  // its text threshold may be another for generated tokens
};

struct FrontierMethod {
  std::string name;            // on the command line
  std::string title;           // in a legend
  std::string parameter;       // what the numbers are
  MethodKind kind = MethodKind::kFamily;
  std::vector<MethodPoint> (*points)(const MethodInputs&) = nullptr;  // kFamily
  SearchedRule rule = {};                                             // kSearched
  int least_ranks = 1;         // what depends on where experts are says nothing on fewer
  bool needs_ratings = false;
  bool joins_ladder = false;   // where it is measured its points are candidates for the ladder
};

// The table, in the order of a legend. The method whose points become the ladder is "gmlg_dmt"; those of "dmt", the same without
// calibrated alpha, compete with them where they are measured.
const std::vector<FrontierMethod>& frontier_methods();
const FrontierMethod& ladder_method();

// "all", or names with commas between; the ladder's method is always among the result. Throws InvalidRequest naming the unknown
// one and the nearest.
std::vector<FrontierMethod> parse_methods(const std::string& text);

// Without the methods that need more ranks than there are.
std::vector<FrontierMethod> methods_for_ranks(std::vector<FrontierMethod> methods, int num_ranks);

// Takes out the methods that need ratings of experts; returns their names.
std::vector<std::string> remove_methods_by_ratings(std::vector<FrontierMethod>& methods);

// A point of the pair rule with these thresholds on alpha · p.
OperatingPoint score_point(const ClassAlpha& alpha, float tau_text, float tau_vision);

}  // namespace skipper
