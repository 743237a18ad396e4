#include "evaluation/skip_calibrator.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "base/error.h"

namespace skipper {
namespace {

// Shares of a class's pairs that exponents are compared at, ascending.
constexpr std::array<double, 2> kTrialRatios = {0.5, 0.75};

std::string class_name(TokenClass token_class) { return std::string(kTokenClassNames[static_cast<size_t>(token_class)]); }

// Vision points change nothing where there is no picture.
SampleSelection selection_for(TokenClass token_class) {
  if (token_class == TokenClass::kVision) return {.kinds = {SampleKind::kVisionQuestion}};
  return {};
}

std::string bypass_name(TokenClass token_class, int layer) {
  return class_name(token_class) + " without MoE layer " + std::to_string(layer);
}

std::string percent(double share) { return std::to_string(std::lround(100.0 * share)) + " %"; }

std::string trial_name(TokenClass token_class, double exponent, double ratio) {
  return class_name(token_class) + " with exponent " + percent(exponent) + ", " + percent(ratio) + " skipped";
}

void require_number(const Measurement& measured, const std::string& name) {
  if (std::isfinite(measured.kl())) return;
  throw Error("KL is " + std::to_string(measured.kl()) + " at " + name + "; check the model with 'skipper eval'");
}

}  // namespace

double best_exponent(std::span<const ExponentTrial> trials) {
  double best = 0.0;
  double least = std::numeric_limits<double>::infinity();
  for (size_t i = 0; i + kTrialRatios.size() <= trials.size(); i += kTrialRatios.size()) {
    const MeasuredRatio lower{trials[i].skip_ratio, trials[i].kl};
    const MeasuredRatio upper{trials[i + 1].skip_ratio, trials[i + 1].kl};
    // At the same ratios for all: thresholds from traces miss theirs by a little, because skipping changes later routing.
    const double loss = kl_at(kTrialRatios[0], lower, upper) + kl_at(kTrialRatios[1], lower, upper);
    if (loss >= least) continue;
    least = loss;
    best = trials[i].exponent;
  }
  return best;
}

std::array<ClassCalibration, kNumSkippableClasses> SkipCalibrator::run(const ProgressCallback& progress) {
  runs_done_ = 0;
  runs_total_ = runs_left(TokenClass::kText) + (settings_.has_vision ? runs_left(TokenClass::kVision) : 0);
  ClassCalibration text = calibrate(TokenClass::kText, progress);
  ClassCalibration vision = settings_.has_vision ? calibrate(TokenClass::kVision, progress) : text;
  return {std::move(text), std::move(vision)};
}

size_t SkipCalibrator::runs_left(TokenClass token_class) const {
  size_t num_points = 0;
  for (int layer = 0; layer < settings_.num_moe_layers; ++layer) {
    if (!log_.find(bypass_name(token_class, layer))) ++num_points;
  }
  for (const double exponent : kAlphaExponents) {
    for (const double ratio : kTrialRatios) {
      if (!log_.find(trial_name(token_class, exponent, ratio))) ++num_points;
    }
  }
  return num_points * evaluator_.num_selected(selection_for(token_class));
}

ClassCalibration SkipCalibrator::calibrate(TokenClass token_class, const ProgressCallback& progress) {
  ClassCalibration result;
  result.bypass_kl = measure_layers(token_class, progress);
  result.trials = try_exponents(token_class, result.bypass_kl, progress);
  result.exponent = best_exponent(result.trials);
  result.alpha = effective_alpha(result.bypass_kl, result.exponent);
  return result;
}

std::vector<double> SkipCalibrator::measure_layers(TokenClass token_class, const ProgressCallback& progress) {
  std::vector<NamedPoint> points;
  for (int layer = 0; layer < settings_.num_moe_layers; ++layer) {
    points.push_back({bypass_name(token_class, layer),
                      bypass_point({token_class, layer}, settings_.num_moe_layers, settings_.bypass)});
  }
  std::vector<double> losses;
  for (const LoggedPoint& one : measure(token_class, points, progress)) losses.push_back(one.mean_kl());
  return losses;
}

std::vector<ExponentTrial> SkipCalibrator::try_exponents(TokenClass token_class, const std::vector<double>& losses,
                                                         const ProgressCallback& progress) {
  std::vector<ExponentTrial> trials;
  std::vector<NamedPoint> points;
  for (const double exponent : kAlphaExponents) {
    const std::vector<float> alpha = effective_alpha(losses, exponent);
    const ScoreDistribution scores = trace_.scores(token_class, alpha);
    if (scores.is_empty()) return {};
    // Pairs of layers with alpha 0 go at any threshold; quantiles are of the rest.
    double num_positive = 0.0;
    for (const ScoreCount& one : scores.scores()) num_positive += one.count;
    const auto num_pairs = static_cast<double>(trace_.num_pairs(token_class));
    for (const double ratio : kTrialRatios) {
      const double share = std::clamp((ratio * num_pairs - (num_pairs - num_positive)) / num_positive, 0.0, 1.0);
      const auto tau = static_cast<float>(scores.quantile(share));
      trials.push_back({.exponent = exponent, .target_ratio = ratio, .tau = tau});
      points.push_back({trial_name(token_class, exponent, ratio), class_point(token_class, alpha, tau)});
    }
  }
  const std::vector<LoggedPoint> measured = measure(token_class, points, progress);
  const auto num_pairs = static_cast<double>(trace_.num_pairs(token_class));
  for (size_t i = 0; i < trials.size(); ++i) {
    trials[i].skip_ratio = static_cast<double>(measured[i].pairs_skipped) / num_pairs;
    trials[i].kl = measured[i].mean_kl();
  }
  return trials;
}

std::vector<LoggedPoint> SkipCalibrator::measure(TokenClass token_class, const std::vector<NamedPoint>& points,
                                                 const ProgressCallback& progress) {
  std::vector<NamedPoint> missing;
  for (const NamedPoint& one : points) {
    if (!log_.find(one.name)) missing.push_back(one);
  }
  for (size_t begin = 0; begin < missing.size(); begin += settings_.points_at_once) {
    const size_t count = std::min(settings_.points_at_once, missing.size() - begin);
    size_t runs_of_batch = 0;
    measure_some(token_class, std::span(missing).subspan(begin, count), [&](size_t done, size_t total) {
      runs_of_batch = total;
      progress(runs_done_ + done, runs_total_);
    });
    runs_done_ += runs_of_batch;
  }
  std::vector<LoggedPoint> measured;
  for (const NamedPoint& one : points) measured.push_back(log_.find(one.name).value());
  return measured;
}

void SkipCalibrator::measure_some(TokenClass token_class, std::span<const NamedPoint> points,
                                  const ProgressCallback& progress) {
  std::vector<OperatingPoint> operating_points;
  for (const NamedPoint& one : points) operating_points.push_back(one.point);
  const std::vector<Measurement> measured = evaluator_.evaluate(operating_points, selection_for(token_class), progress);
  for (size_t i = 0; i < points.size(); ++i) {
    require_number(measured[i], points[i].name);
    log_.add(points[i].name, {measured[i].kl(), measured[i].num_scored(), measured[i].usage().pairs_skipped});
  }
}

}  // namespace skipper
