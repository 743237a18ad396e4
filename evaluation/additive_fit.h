// Whether losses of experts add up: sums against measurements, and per-layer factors where they do not.
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

// Factors >= 0.05 of the layers' losses that make the sums fit the measurements best, drawn towards 1 where these say little.
std::vector<double> fit_layer_factors(std::span<const PlanSums> plans);
// R² of such factors, each plan predicted from the others alone.
double cross_validated_r_squared(std::span<const PlanSums> plans);

}  // namespace skipper
