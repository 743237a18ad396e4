// From scores to a ladder: searches thresholds on one part of the data and measures what it chose on the other.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "evaluation/frontier_methods.h"
#include "evaluation/frontier_search.h"
#include "evaluation/ladder.h"
#include "evaluation/point_measurement.h"
#include "evaluation/step_time_model.h"

namespace skipper {

// What the search wants enough of, as a share of what skipping every text and vision pair would gain.
enum class FrontierObjective : uint8_t {
  kPairs,  // text and vision pairs skipped
  kBytes,  // payload to other ranks saved
  kTime,   // step time saved, by a model fitted to the first points
};

// Throws InvalidRequest naming the text.
FrontierObjective parse_objective(const std::string& text);

struct FrontierSettings {
  FrontierObjective objective = FrontierObjective::kPairs;
  int grid = 24;               // thresholds above 0 for each class
  int num_destination_thresholds = 0;  // of the destination rule, above 0; the search's third axis
  int num_shadow_thresholds = 0;       // of the shadow rule, above 0; beside those of the destination rule
  float shadow_error = 0.0f;           // of the shadows that there are (ShadowExpert); 0: none
  int num_generated_steps = 0;  // passes for each target in search of another threshold of generated tokens
  std::vector<FrontierMethod> methods;
  std::vector<double> targets;  // ascending from 0
};

struct MethodCurve {
  FrontierMethod method;
  std::vector<MeasuredPoint> points;  // in the order of parameter or target
};

struct FrontierResult {
  std::vector<MeasuredPoint> ladder;  // cleaned; the first skips nothing
  std::vector<MethodCurve> curves;    // as measured, one per method
  StepTimeModel step_time;
  int num_search_points = 0;          // evaluated for all searches together
  int num_beaten = 0;                 // points of the ladder's methods that the clean-up dropped
  bool is_monotone = true;            // loss and gain ascended with the thresholds at all points of the ladder's search
};

// Told after each pass: how many are done of about how many.
using FrontierProgress = std::function<void(size_t done, size_t total)>;

// Throws Error when a measurement is not a number, or when the data has no answer token.
FrontierResult run_frontier(const MethodInputs& inputs, const FrontierSettings& settings, const PointEvaluator& evaluate,
                            const FrontierProgress& progress);

}  // namespace skipper
