#include "evaluation/loss_estimate.h"

#include <glog/logging.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <optional>

namespace skipper {
namespace {

constexpr double kSureErrors = 2.0;

struct KindSums {
  double kl = 0.0, tokens = 0.0, squares = 0.0;
  double count = 0.0;

  double mean() const { return tokens > 0.0 ? kl / tokens : 0.0; }
  // Of the kind's sum of kl.
  double variance() const { return count > 1.0 ? squares * count / (count - 1.0) : kl * kl; }
};

double weighted_mean(std::span<const double> values, std::span<const double> weights) {
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  return sum > 0.0 ? std::inner_product(values.begin(), values.end(), weights.begin(), 0.0) / sum : 0.0;
}

// Of the values, beyond what their errors explain.
double excess_variance(std::span<const double> values, std::span<const double> errors, std::span<const double> weights) {
  const double mean = weighted_mean(values, weights);
  std::vector<double> excess;
  for (size_t i = 0; i < values.size(); ++i) {
    excess.push_back((values[i] - mean) * (values[i] - mean) - errors[i] * errors[i]);
  }
  return std::max(0.0, weighted_mean(excess, weights));
}

}  // namespace

LossEstimate estimate_loss(std::span<const ScoredLoss> samples) {
  std::array<KindSums, kNumSampleKinds> kinds{};
  double kl = 0.0, tokens = 0.0;
  for (const ScoredLoss& sample : samples) {
    KindSums& kind = kinds[static_cast<size_t>(sample.kind)];
    kind.kl += sample.kl;
    kind.tokens += sample.tokens;
    kind.count += 1.0;
    kl += sample.kl;
    tokens += sample.tokens;
  }
  if (tokens <= 0.0) return {};
  for (const ScoredLoss& sample : samples) {
    KindSums& kind = kinds[static_cast<size_t>(sample.kind)];
    const double residual = sample.kl - kind.mean() * sample.tokens;
    kind.squares += residual * residual;
  }
  double variance = 0.0;
  for (const KindSums& kind : kinds) variance += kind.variance();
  return {kl / tokens, std::sqrt(variance) / tokens};
}

LossEstimate estimate_difference(std::span<const ScoredLoss> one, std::span<const ScoredLoss> other) {
  CHECK_EQ(one.size(), other.size());
  std::vector<ScoredLoss> differences(one.begin(), one.end());
  for (size_t i = 0; i < differences.size(); ++i) differences[i].kl -= other[i].kl;
  return estimate_loss(differences);
}

std::vector<double> shrink_to_mean(std::span<const double> values, std::span<const double> standard_errors,
                                   std::span<const double> weights) {
  CHECK_EQ(values.size(), standard_errors.size());
  CHECK_EQ(values.size(), weights.size());
  const double mean = weighted_mean(values, weights);
  const double spread = excess_variance(values, standard_errors, weights);
  std::vector<double> shrunk;
  for (size_t i = 0; i < values.size(); ++i) {
    const double noise = standard_errors[i] * standard_errors[i];
    const double share = noise > 0.0 ? spread / (spread + noise) : 1.0;
    shrunk.push_back(share * values[i] + (1.0 - share) * mean);
  }
  return shrunk;
}

size_t best_plain(std::span<const std::vector<ScoredLoss>> losses, std::span<const uint8_t> is_plain) {
  CHECK(!losses.empty());
  CHECK_EQ(losses.size(), is_plain.size());
  const bool has_plain = std::ranges::any_of(is_plain, [](uint8_t plain) { return plain != 0; });
  std::optional<size_t> best;
  for (size_t i = 0; i < losses.size(); ++i) {
    if (has_plain && is_plain[i] == 0) continue;
    if (!best || estimate_loss(losses[i]).mean < estimate_loss(losses[*best]).mean) best = i;
  }
  return *best;
}

size_t surely_best(std::span<const std::vector<ScoredLoss>> losses, std::span<const uint8_t> is_plain) {
  const size_t plain = best_plain(losses, is_plain);
  size_t best = plain;
  for (size_t i = 0; i < losses.size(); ++i) {
    const LossEstimate difference = estimate_difference(losses[i], losses[plain]);
    const bool is_sure = difference.mean < -kSureErrors * difference.standard_error;
    if (is_sure && estimate_loss(losses[i]).mean < estimate_loss(losses[best]).mean) best = i;
  }
  return best;
}

}  // namespace skipper
