#include "evaluation/additive_fit.h"

#include <numeric>

namespace skipper {

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

}  // namespace skipper
