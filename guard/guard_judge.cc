#include "guard/guard_judge.h"

#include <algorithm>
#include <cmath>
#include <sstream>

namespace skipper {

double allowed_error(const GuardConfig& config, double known_error) {
  return std::max(config.max_error_ratio * known_error, kHarmlessError);
}

std::string GuardBreach::text() const {
  std::ostringstream out;
  if (kind == BreachKind::kPredictions) {
    out << "KL " << measured << " nats per token over " << threshold << " (" << num_samples << " tokens)";
  } else {
    out << "expert " << expert << " of MoE layer " << moe_layer << " on rank " << rank << ": relative error " << measured
        << " over " << threshold << " (" << num_samples << " rows)";
  }
  return out.str();
}

std::optional<GuardBreach> GuardJudge::judge(std::span<const GuardReading> readings) const {
  const auto worst = std::ranges::max_element(readings, {}, &GuardReading::excess);
  if (worst == readings.end() || worst->excess() <= 1.0) return {};
  return GuardBreach{.kind = BreachKind::kExpertError,
                     .measured = worst->relative_error,
                     .threshold = worst->allowed_error,
                     .num_samples = worst->num_rows,
                     .rank = static_cast<int>(worst - readings.begin()),
                     .moe_layer = worst->moe_layer,
                     .expert = worst->expert};
}

std::optional<GuardBreach> GuardJudge::judge_predictions(double kl, int64_t num_tokens) {
  predictions_.add({kl, static_cast<double>(num_tokens), num_tokens}, config_.window_tokens);
  const RatioSums sums = predictions_.total();
  // NaN is not over a threshold, but certainly wrong.
  if (sums.count < config_.min_tokens || mean_kl() <= config_.max_kl) return {};
  return GuardBreach{.kind = BreachKind::kPredictions,
                     .measured = mean_kl(),
                     .threshold = config_.max_kl,
                     .num_samples = sums.count};
}

double GuardJudge::mean_kl() const {
  const RatioSums sums = predictions_.total();
  return sums.count == 0 ? 0.0 : sums.numerator / sums.denominator;
}

}  // namespace skipper
