#include "evaluation/frontier_run.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>

#include "base/error.h"
#include "base/json_fields.h"
#include "evaluation/generated_threshold.h"

namespace skipper {
namespace {

// Shares of the grids at which step time is measured for the model before a search by time.
constexpr std::array<double, 4> kTimedShares = {0.25, 0.5, 0.75, 1.0};
constexpr float kOverAll = 1.001f;
constexpr size_t kText = static_cast<size_t>(TokenClass::kText);
constexpr size_t kVision = static_cast<size_t>(TokenClass::kVision);

// Every pass over the data goes through here.
class Measurements {
 public:
  Measurements(const PointEvaluator& evaluate, const FrontierProgress& progress) : evaluate_(evaluate), progress_(progress) {}

  PointMeasurement measure(const OperatingPoint& point, DataSplit split) {
    const PointMeasurement measured = evaluate_(point, split);
    if (!std::isfinite(measured.kl)) {
      throw Error("KL is " + std::to_string(measured.kl) + " with thresholds " + std::to_string(point.tau[kText]) +
                  " for text and " + std::to_string(point.tau[kVision]) +
                  " for vision; check the model with 'skipper eval'");
    }
    if (measured.num_scored == 0) throw Error("no sample has an answer to compare; give --data questions with answers");
    if (split == DataSplit::kSearch) {
      samples_.push_back({measured.pairs() / static_cast<double>(std::max<int64_t>(measured.num_steps, 1)),
                          measured.remote_bytes() / static_cast<double>(std::max<int64_t>(measured.num_steps, 1)),
                          measured.step_seconds()});
    }
    ++num_done_;
    progress_(num_done_, std::max(expected_, num_done_));
    return measured;
  }

  // How many passes are still to come, about: of the method that runs, and of those after it.
  void expect(size_t num_more) { expected_ = num_done_ + num_more + num_later_; }
  void expect_later(size_t num_later) { num_later_ = num_later; }
  StepTimeModel fitted_step_time() const { return fit_step_time(samples_); }

 private:
  const PointEvaluator& evaluate_;
  const FrontierProgress& progress_;
  std::vector<StepTimeSample> samples_;
  size_t num_done_ = 0;
  size_t expected_ = 0;
  size_t num_later_ = 0;
};

// What a point gains, of what skipping everything gains.
class GainScale {
 public:
  GainScale(FrontierObjective objective, const PointMeasurement& none, const PointMeasurement& all, StepTimeModel model)
      : objective_(objective), model_(model), none_(raw(none)), range_(raw(all) - none_) {
    if (range_ <= 0.0) refuse();
  }

  double operator()(const PointMeasurement& point) const { return (raw(point) - none_) / range_; }

 private:
  [[noreturn]] void refuse() const {
    switch (objective_) {
      case FrontierObjective::kPairs:
        throw Error("objective pairs: no pair can be skipped at the calibrated scores; calibrate again, on this model");
      case FrontierObjective::kBytes:
        throw Error("objective bytes: nothing is sent to other ranks; start at least 2 ranks, or use --objective pairs");
      case FrontierObjective::kTime:
        break;
    }
    throw Error("objective time: skipping everything saves no measured step time here; use --objective pairs");
  }

  double raw(const PointMeasurement& point) const {
    switch (objective_) {
      case FrontierObjective::kPairs:
        return point.skip_ratio();
      case FrontierObjective::kBytes:
        return point.saved_bytes_ratio();
      case FrontierObjective::kTime:
        break;
    }
    const auto steps = static_cast<double>(std::max<int64_t>(point.num_steps, 1));
    return -model_.seconds(point.pairs() / steps, point.remote_bytes() / steps);
  }

  FrontierObjective objective_;
  StepTimeModel model_;
  double none_ = 0.0;
  double range_ = 0.0;
};

// Of all classes and hops: at most one is above 0.
struct TripThresholds {
  float destination = 0.0f;
  float shadow = 0.0f;
};

void set_other_ranks(std::array<std::array<float, kNumHops>, kNumSkippableClasses>& thresholds, float value) {
  for (auto& by_hop : thresholds) {
    for (const Hop hop : {Hop::kNode, Hop::kNetwork}) by_hop[static_cast<size_t>(hop)] = value;
  }
}

// The thresholds of a searched method: text × vision, for each threshold of the destination rule and of the shadow rule.
struct ThresholdSpace {
  const SearchedRule& rule;
  const SkipScores& scores;
  ThresholdLists tau;
  std::vector<TripThresholds> trips = {{}};

  ThresholdSpace(const SearchedRule& searched, const MethodInputs& inputs, const FrontierSettings& settings)
      : rule(searched), scores(rule.scores(inputs)), tau(rule.thresholds(scores, settings.grid)) {
    if (rule.is_destination_rule) return;
    add_destination_thresholds(settings.num_destination_thresholds);
    add_shadow_thresholds(settings.num_shadow_thresholds, settings.shadow_error);
  }

  GridSize size() const { return {static_cast<int>(tau[kText].size()), static_cast<int>(tau[kVision].size())}; }

  OperatingPoint point(GridIndex index, const TripThresholds& trip) const { return point(PhaseIndex{index, index.text}, trip); }

  OperatingPoint point(const PhaseIndex& index, const TripThresholds& trip) const {
    const auto text = static_cast<size_t>(index.prompt.text), vision = static_cast<size_t>(index.prompt.vision);
    OperatingPoint point = rule.point(scores, {tau[kText][text], tau[kVision][vision]});
    if (index.generated != index.prompt.text) point.tau_generated = tau[kText][static_cast<size_t>(index.generated)];
    if (trip.destination > 0.0f) set_other_ranks(point.tau_dst, trip.destination);
    if (trip.shadow > 0.0f) set_other_ranks(point.tau_shadow, trip.shadow);
    return point;
  }

  OperatingPoint highest() const { return point(GridIndex{size().text - 1, size().vision - 1}, {}); }

  // The point at this share of each list.
  OperatingPoint at_share(double text_share, double vision_share) const {
    const GridIndex index{static_cast<int>(text_share * (size().text - 1)), static_cast<int>(vision_share * (size().vision - 1))};
    return point(index, {});
  }

 private:
  // A destination's score is alpha · Σ p², and (alpha · p)² / alpha for one pair: what quantiles of s make of it.
  void add_destination_thresholds(int count) {
    const ScoreDistribution pooled = scores.pooled();
    const auto num_layers = static_cast<double>(scores.alpha[kText].size());
    for (int i = 1; i <= count && !pooled.is_empty(); ++i) {
      const double score = pooled.quantile(static_cast<double>(i) / static_cast<double>(count + 1));
      trips.push_back({.destination = static_cast<float>(score * score * num_layers)});
    }
  }

  // The same times what a shadow loses of its expert's answer. The last is above all that shadows lose: Σ p² is at most 1.
  void add_shadow_thresholds(int count, float error) {
    const ScoreDistribution pooled = scores.pooled();
    const auto num_layers = static_cast<double>(scores.alpha[kText].size());
    float highest_alpha = 0.0f;
    for (const std::vector<float>& alpha : scores.alpha) highest_alpha = std::max(highest_alpha, std::ranges::max(alpha));
    for (int i = 1; i < count && !pooled.is_empty(); ++i) {
      const double score = pooled.quantile(static_cast<double>(i) / static_cast<double>(count));
      trips.push_back({.shadow = static_cast<float>(score * score * num_layers) * error});
    }
    if (count > 0) trips.push_back({.shadow = kOverAll * highest_alpha * error});
  }
};

// Searches all targets over one space; each pass over the data is made once.
class ThresholdSearch {
 public:
  ThresholdSearch(const ThresholdSpace& space, const FrontierSettings& settings, Measurements& measurements)
      : space_(space), settings_(settings), measurements_(measurements) {
    measure_scale();
    for (const TripThresholds& trip : space.trips) {
      grids_.emplace_back(space.size(), [this, trip](GridIndex index) { return value_of(space_.point(index, trip)); });
    }
  }

  // The best point of every target that some point reaches, measured on the held-out split.
  std::vector<MeasuredPoint> run() {
    std::vector<MeasuredPoint> chosen;
    for (size_t i = 0; i < settings_.targets.size(); ++i) {
      const double target = settings_.targets[i];
      if (target <= 0.0) {
        chosen.push_back({target, space_.point(GridIndex{0, 0}, {}), {}});
      } else if (const auto best = best_point(target)) {
        chosen.push_back({target, *best, {}});
      }
      measurements_.expect(passes_left(i + 1));
    }
    for (MeasuredPoint& one : chosen) one.held_out = measurements_.measure(one.point, DataSplit::kHeldOut);
    return chosen;
  }

  bool is_monotone() const {
    return std::none_of(grids_.begin(), grids_.end(), [](const EvaluatedGrid& grid) { return grid.violates_monotonicity(); });
  }

  int num_evaluated() const {
    size_t sum = 0;
    for (const EvaluatedGrid& grid : grids_) sum += grid.evaluated().size();
    return static_cast<int>(sum);
  }

 private:
  void measure_scale() {
    measurements_.expect(passes_left(0));
    const PointMeasurement none = measurements_.measure(space_.point(GridIndex{0, 0}, {}), DataSplit::kSearch);
    const PointMeasurement all = measurements_.measure(space_.highest(), DataSplit::kSearch);
    if (settings_.objective == FrontierObjective::kTime) {
      for (const double share : kTimedShares) {
        for (const auto& [text, vision] : {std::pair{share, share}, std::pair{share, 0.0}, std::pair{0.0, share}}) {
          measurements_.measure(space_.at_share(text, vision), DataSplit::kSearch);
        }
      }
    }
    gain_.emplace(settings_.objective, none, all, measurements_.fitted_step_time());
  }

  PointValue value_of(const OperatingPoint& point) {
    const PointMeasurement measured = measurements_.measure(point, DataSplit::kSearch);
    return {measured.mean_kl(), (*gain_)(measured)};
  }

  std::optional<OperatingPoint> best_point(double target) {
    std::optional<GridIndex> best;
    PointValue best_value;
    TripThresholds best_trip;
    for (size_t d = 0; d < grids_.size(); ++d) {
      const std::optional<GridIndex> found = search_frontier(grids_[d], target);
      if (!found || (best && grids_[d].at(*found).loss >= best_value.loss)) continue;
      best = found;
      best_value = grids_[d].at(*found);
      best_trip = space_.trips[d];
    }
    if (!best) return std::nullopt;
    const PhaseWalk walk{space_.size(), target, space_.rule.has_generated_threshold ? settings_.num_generated_steps : 0};
    const PhaseIndex place = walk_generated_threshold(*best, best_value, walk, [&](const PhaseIndex& index) {
      return value_of(space_.point(index, best_trip));
    });
    return space_.point(place, best_trip);
  }

  // The walks of later targets meet ever more points that are known; until one is done, count it as half new.
  size_t passes_left(size_t num_targets_done) const {
    const size_t num_left = settings_.targets.size() - num_targets_done;
    const size_t per_walk = static_cast<size_t>(space_.size().text + space_.size().vision) * space_.trips.size();
    const size_t new_per_walk =
        num_targets_done == 0 ? per_walk / 2 : static_cast<size_t>(num_evaluated()) / num_targets_done;
    return num_left * (new_per_walk + static_cast<size_t>(settings_.num_generated_steps)) + settings_.targets.size();
  }

  const ThresholdSpace& space_;
  const FrontierSettings& settings_;
  Measurements& measurements_;
  std::optional<GainScale> gain_;
  std::vector<EvaluatedGrid> grids_;
};

std::vector<MeasuredPoint> measure_family(const std::vector<MethodPoint>& points, Measurements& measurements) {
  measurements.expect(points.size());
  std::vector<MeasuredPoint> measured;
  for (const MethodPoint& one : points) {
    measured.push_back({one.parameter, one.point, measurements.measure(one.point, DataSplit::kHeldOut)});
  }
  return measured;
}

// Before a method has begun. Half of a walk's points are known from the walks before it.
size_t expected_passes(const FrontierMethod& method, const MethodInputs& inputs, const FrontierSettings& settings) {
  if (method.kind == MethodKind::kFamily) return method.points(inputs).size();
  const auto per_walk = static_cast<size_t>(settings.grid) *
                        static_cast<size_t>(settings.num_destination_thresholds + settings.num_shadow_thresholds + 1);
  return settings.targets.size() * (per_walk + static_cast<size_t>(settings.num_generated_steps) + 1);
}

}  // namespace

FrontierObjective parse_objective(const std::string& text) {
  if (text == "pairs") return FrontierObjective::kPairs;
  if (text == "bytes") return FrontierObjective::kBytes;
  if (text == "time") return FrontierObjective::kTime;
  const auto nearest = nearest_name(text, {"pairs", "bytes", "time"});
  throw InvalidRequest("objective: '" + text + "' is none of pairs, bytes, time" +
                           (nearest ? "; did you mean '" + *nearest + "'?" : ""),
                       "objective");
}

FrontierResult run_frontier(const MethodInputs& inputs, const FrontierSettings& settings, const PointEvaluator& evaluate,
                            const FrontierProgress& progress) {
  Measurements measurements(evaluate, progress);
  FrontierResult result;
  std::vector<MeasuredPoint> candidates;
  size_t num_later = 0;
  for (const FrontierMethod& method : settings.methods) num_later += expected_passes(method, inputs, settings);
  for (const FrontierMethod& method : settings.methods) {
    num_later -= expected_passes(method, inputs, settings);
    measurements.expect_later(num_later);
    if (method.kind == MethodKind::kFamily) {
      result.curves.push_back({method, measure_family(method.points(inputs), measurements)});
      continue;
    }
    const ThresholdSpace space(method.rule, inputs, settings);
    ThresholdSearch search(space, settings, measurements);
    result.curves.push_back({method, search.run()});
    result.num_search_points += search.num_evaluated();
    if (!method.joins_ladder) continue;
    // The first skips nothing, and is there already from the second method on.
    const std::vector<MeasuredPoint>& points = result.curves.back().points;
    candidates.insert(candidates.end(), points.begin() + (candidates.empty() ? 0 : 1), points.end());
    result.is_monotone = result.is_monotone && search.is_monotone();
  }
  const bool uses_shadows = settings.num_shadow_thresholds > 0;
  result.ladder = clean_ladder(candidates, uses_shadows ? LadderOrder::kSavedBytes : LadderOrder::kSkipRatio);
  result.num_beaten = static_cast<int>(candidates.size() - result.ladder.size());
  result.step_time = measurements.fitted_step_time();
  return result;
}

}  // namespace skipper
