// Turns the loads that all ranks report into metrics, and warns when the fullest rank makes the others wait.
#pragma once

#include "audit/load_window.h"
#include "engine/engine.h"
#include "expert_parallel/expert_placement.h"
#include "metrics/metrics_registry.h"

namespace skipper {

// Rank 0's engine thread. `placement` and `metrics` outlive this object.
class LoadWatch {
 public:
  // alarm: largest load over mean that may last for a window; 0 = any.
  LoadWatch(const ExpertPlacement& placement, double alarm, MetricsRegistry& metrics);

  // A StepObserver; of use in the steps whose reports bring expert loads.
  void observe(const StepReport& report);

 private:
  void warn(double max_over_mean) const;

  const ExpertPlacement& placement_;
  MetricsRegistry& metrics_;
  const double threshold_;
  LoadWindow window_;
  ImbalanceAlarm alarm_;
};

}  // namespace skipper
