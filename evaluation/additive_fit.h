// Whether losses of experts add up: sums against measurements.
#pragma once

#include <span>
#include <vector>

namespace skipper {

// One plan: the predicted losses of its layers, and what was measured.
struct PlanSums {
  std::vector<double> layers;  // [MoE layers], nats per token
  double measured = 0.0;

  double predicted() const;
};

// 1 − Σ (measured − predicted)² / Σ (measured − mean)²; 0 where all measurements are alike.
double r_squared(std::span<const double> predicted, std::span<const double> measured);
double r_squared(std::span<const PlanSums> plans);

}  // namespace skipper
