#include "planning/plan_candidates.h"

#include <algorithm>
#include <numeric>
#include <optional>
#include <utility>

#include "base/error.h"
#include "planning/plan_solver.h"

namespace skipper {
namespace {

constexpr double kAsMeasured = 0.0, kHalf = 0.5, kLayersAlone = 1.0;
constexpr size_t kNumUniform = 2;

// Formats of the profile by index; one past the last is unrounded.
struct FormatRange {
  size_t first = 0;
  size_t last = 0;
};

class CandidateMaker {
 public:
  CandidateMaker(const PlanProblem& problem, ExpertPlan plan) : problem_(problem), bits_(plan.predicted.expert_bits) {
    candidates_.push_back({"the plan", std::move(plan), false});
  }

  std::vector<PlanCandidate> run() {
    const size_t unrounded = problem_.profile.formats.size();
    if (unrounded == 0) return std::move(candidates_);
    const FormatRange near = neighbours();
    const FormatRange wide{near.first - (near.first > 0 ? 1 : 0), std::min(near.last + 1, unrounded)};
    add("all formats, half trusted", {0, unrounded}, kHalf);
    add("near formats", wide, kAsMeasured);
    add("near formats, half trusted", wide, kHalf);
    add("neighbours", near, kAsMeasured);
    add("neighbours, half trusted", near, kHalf);
    add("neighbours by layers", near, kLayersAlone);
    add_uniform();
    return std::move(candidates_);
  }

 private:
  // The formats next below and above what the plan's experts have on average.
  FormatRange neighbours() const {
    const std::vector<WeightFormat>& formats = problem_.profile.formats;
    constexpr double kRounding = 1e-9;
    size_t above = 0;
    while (above < formats.size() && formats[above].bits_per_weight() <= bits_ + kRounding) ++above;
    return {above > 0 ? above - 1 : 0, std::max<size_t>(above, 1)};
  }

  // The best of those that all experts can have.
  void add_uniform() {
    const std::vector<double>& losses = problem_.profile.uniform_loss;
    std::vector<size_t> order(problem_.profile.formats.size());
    std::iota(order.begin(), order.end(), 0);
    std::ranges::stable_sort(order, {}, [&](size_t f) { return losses.empty() ? -static_cast<double>(f) : losses[f]; });
    size_t num_added = 0;
    for (const size_t format : order) {
      num_added += add("all " + name_of(problem_.profile.formats[format]), {format, format}, kLayersAlone) ? 1 : 0;
      if (num_added == kNumUniform) return;
    }
  }

  // Whether there is such a plan; one that is there already is not added again.
  bool add(const std::string& name, const FormatRange& range, double shrinkage) {
    std::optional<ExpertPlan> plan = plan_of(range, shrinkage);
    if (!plan) return false;
    const bool is_plain = shrinkage == kLayersAlone;
    const auto same = std::ranges::find_if(candidates_, [&](const PlanCandidate& c) { return c.plan.copies == plan->copies; });
    if (same == candidates_.end()) {
      candidates_.push_back({name, std::move(*plan), is_plain});
    } else {
      same->is_plain = same->is_plain || is_plain;
    }
    return true;
  }

  // Nothing where the formats do not fit, or lose more than was allowed.
  std::optional<ExpertPlan> plan_of(const FormatRange& range, double shrinkage) const {
    const size_t unrounded = problem_.profile.formats.size();
    PrecisionProfile profile = restricted_to(problem_.profile, range.first, std::min(range.last, unrounded - 1));
    profile.shrinkage = shrinkage;
    PlanProblem problem{.model = problem_.model, .profile = profile, .ranks = problem_.ranks, .target = problem_.target,
                        .max_loss = problem_.max_loss, .dense_bytes = problem_.dense_bytes,
                        .dense_format = problem_.dense_format, .rates = problem_.rates, .owners = problem_.owners,
                        .has_unrounded = range.last == unrounded};
    if (find_shortage(problem)) return std::nullopt;
    try {
      return make_plan(problem);
    } catch (const ResourceExhausted&) {
      return std::nullopt;
    }
  }

  const PlanProblem& problem_;
  const double bits_;
  std::vector<PlanCandidate> candidates_;
};

}  // namespace

std::vector<PlanCandidate> plan_candidates(const PlanProblem& problem, ExpertPlan plan) {
  return CandidateMaker(problem, std::move(plan)).run();
}

PrecisionProfile restricted_to(const PrecisionProfile& profile, size_t first, size_t last) {
  const auto part = [&](const auto& list) {
    using List = std::decay_t<decltype(list)>;
    return List(list.begin() + static_cast<std::ptrdiff_t>(first), list.begin() + static_cast<std::ptrdiff_t>(last + 1));
  };
  PrecisionProfile restricted = profile;
  restricted.formats = part(profile.formats);
  if (!profile.uniform_loss.empty()) restricted.uniform_loss = part(profile.uniform_loss);
  for (LayerSensitivity& layer : restricted.layers) {
    for (ExpertSensitivity& expert : layer.experts) expert.error = part(expert.error);
  }
  return restricted;
}

}  // namespace skipper
