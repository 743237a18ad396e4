// Measures alpha: bypasses each layer for each class, and chooses the exponent that loses least.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "evaluation/point_log.h"
#include "evaluation/skip_calibration.h"
#include "evaluation/skip_evaluator.h"

namespace skipper {

struct CalibratorSettings {
  int num_moe_layers = 0;
  BypassOutput bypass = BypassOutput::kZero;
  bool has_vision = true;      // without, vision gets text's numbers: no token has them
  size_t points_at_once = 4;   // of one pass over the samples; after each the log grows
};

// Rank 0; after measure_reference() of the search split, whose routing `trace` holds.
class SkipCalibrator {
 public:
  SkipCalibrator(const CalibratorSettings& settings, SkipEvaluator& evaluator, const RoutingTrace& trace, PointLog& log)
      : settings_(settings), evaluator_(evaluator), trace_(trace), log_(log) {}

  // Text and vision. Progress counts runs of samples that the log does not have. Throws Error naming a layer or threshold whose
  // KL is not a number.
  std::array<ClassCalibration, kNumSkippableClasses> run(const ProgressCallback& progress);

 private:
  // A point with its name in the log.
  struct NamedPoint {
    std::string name;
    OperatingPoint point;
  };

  // Runs of samples that the log does not have yet.
  size_t runs_left(TokenClass token_class) const;
  ClassCalibration calibrate(TokenClass token_class, const ProgressCallback& progress);
  std::vector<double> measure_layers(TokenClass token_class, const ProgressCallback& progress);
  std::vector<ExponentTrial> try_exponents(TokenClass token_class, const std::vector<double>& losses,
                                           const ProgressCallback& progress);
  std::vector<LoggedPoint> measure(TokenClass token_class, const std::vector<NamedPoint>& points,
                                   const ProgressCallback& progress);
  void measure_some(TokenClass token_class, std::span<const NamedPoint> points, const ProgressCallback& progress);

  CalibratorSettings settings_;
  SkipEvaluator& evaluator_;
  const RoutingTrace& trace_;
  PointLog& log_;
  size_t runs_done_ = 0;
  size_t runs_total_ = 0;
};

// The exponent whose trials lose least at the target ratios together; the smaller one when equal.
double best_exponent(std::span<const ExponentTrial> trials);

}  // namespace skipper
