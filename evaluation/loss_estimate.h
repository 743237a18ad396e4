// How sure a measured loss is: standard errors of losses and of paired differences, and estimates drawn together where they say
// little by themselves.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "evaluation/scored_samples.h"

namespace skipper {

// What one sample lost. Samples count whole, as the tokens of one depend on each other.
struct ScoredLoss {
  SampleKind kind = SampleKind::kText;
  double kl = 0.0;      // sum over its scored tokens, in nats
  double tokens = 0.0;  // scored
};

// In nats per token.
struct LossEstimate {
  double mean = 0.0;
  double standard_error = 0.0;
};

// Σ kl / Σ tokens with the standard error of a ratio of sums, samples drawn within their kind (Cochran 1977, combined ratio
// estimator). A kind of one sample adds the whole of its loss to the error, since nothing says how others would differ.
LossEstimate estimate_loss(std::span<const ScoredLoss> samples);

// Loss of `one` minus loss of `other`, sample by sample: what both have in common cancels. Same samples in the same order.
LossEstimate estimate_difference(std::span<const ScoredLoss> one, std::span<const ScoredLoss> other);

// Measured values drawn towards their weighted mean, each by the share of its spread that is noise (empirical Bayes, James and
// Stein 1961; Efron and Morris 1973): w · value + (1 − w) · mean with w = τ² / (τ² + error²), where τ² is the weighted variance
// of the values beyond what their standard errors explain. Values without error stay; where the errors explain all differences,
// all become the mean. None leaves the range of the values. Arrays are of the same length; weights are not negative.
std::vector<double> shrink_to_mean(std::span<const double> values, std::span<const double> standard_errors,
                                   std::span<const double> weights);

// Index of the least mean among those that are plain, or among all where none is.
size_t best_plain(std::span<const std::vector<ScoredLoss>> losses, std::span<const uint8_t> is_plain);

// best_plain(), unless some lose less than it by more than twice the standard error of the paired difference: then the least
// mean of these. What was chosen among several for being small is smaller than it will be again; what is plain was not chosen
// so. Never loses more, by its own measure, than any plain one.
size_t surely_best(std::span<const std::vector<ScoredLoss>> losses, std::span<const uint8_t> is_plain);

}  // namespace skipper
