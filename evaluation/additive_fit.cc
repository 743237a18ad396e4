#include "evaluation/additive_fit.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace skipper {
namespace {

constexpr int kRounds = 500;
// Weight of a factor's distance from 1, against the mean square of its layer's losses over the plans.
constexpr double kRidge = 0.02;
constexpr double kLeastFactor = 0.05;

double sum_with(const PlanSums& plan, std::span<const double> factors) {
  return std::inner_product(plan.layers.begin(), plan.layers.end(), factors.begin(), 0.0);
}

}  // namespace

double PlanSums::predicted() const { return std::accumulate(layers.begin(), layers.end(), 0.0); }

double r_squared(std::span<const double> predicted, std::span<const double> measured) {
  if (measured.empty()) return 0.0;
  const double mean = std::accumulate(measured.begin(), measured.end(), 0.0) / static_cast<double>(measured.size());
  double residual = 0.0, total = 0.0;
  for (size_t i = 0; i < measured.size(); ++i) {
    residual += (measured[i] - predicted[i]) * (measured[i] - predicted[i]);
    total += (measured[i] - mean) * (measured[i] - mean);
  }
  return total > 0.0 ? 1.0 - residual / total : 0.0;
}

double r_squared(std::span<const PlanSums> plans) {
  std::vector<double> predicted, measured;
  for (const PlanSums& plan : plans) {
    predicted.push_back(plan.predicted());
    measured.push_back(plan.measured);
  }
  return r_squared(predicted, measured);
}

// Coordinate descent: each factor in turn becomes the best for the others as they are.
std::vector<double> fit_layer_factors(std::span<const PlanSums> plans) {
  if (plans.empty()) return {};
  std::vector<double> factors(plans.front().layers.size(), 1.0);
  for (int round = 0; round < kRounds; ++round) {
    for (size_t layer = 0; layer < factors.size(); ++layer) {
      double squares = 0.0, products = 0.0;
      for (const PlanSums& plan : plans) {
        const double loss = plan.layers[layer];
        squares += loss * loss;
        products += loss * (plan.measured - sum_with(plan, factors) + factors[layer] * loss);
      }
      if (squares > 0.0) factors[layer] = std::max(kLeastFactor, (products + kRidge * squares) / ((1.0 + kRidge) * squares));
    }
  }
  return factors;
}

double cross_validated_r_squared(std::span<const PlanSums> plans) {
  std::vector<double> predicted, measured;
  for (size_t left_out = 0; left_out < plans.size(); ++left_out) {
    std::vector<PlanSums> others(plans.begin(), plans.end());
    others.erase(others.begin() + static_cast<ptrdiff_t>(left_out));
    const std::vector<double> factors = fit_layer_factors(others);
    predicted.push_back(factors.empty() ? 0.0 : sum_with(plans[left_out], factors));
    measured.push_back(plans[left_out].measured);
  }
  return r_squared(predicted, measured);
}

}  // namespace skipper
