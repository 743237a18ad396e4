#include "launcher/load_watch.h"

#include <glog/logging.h>

#include <algorithm>
#include <vector>

namespace skipper {

namespace {

constexpr int64_t kWindowSteps = 1000;

}  // namespace

LoadWatch::LoadWatch(const ExpertPlacement& placement, double alarm, MetricsRegistry& metrics)
    : placement_(placement),
      metrics_(metrics),
      threshold_(alarm),
      window_({placement.num_moe_layers(), placement.num_experts()}, kWindowSteps),
      alarm_(alarm) {}

void LoadWatch::observe(const StepReport& report) {
  if (report.expert_loads.empty()) return;
  window_.add(report.step, report.expert_loads);
  const double max_over_mean = window_.rank_max_over_mean(placement_);
  if (window_.is_full() && alarm_.update(max_over_mean)) warn(max_over_mean);

  LoadGauges gauges{.rank_max_over_mean = max_over_mean, .num_alarms = alarm_.num_alarms(), .layers = {}};
  for (const ClassBalance& entry : window_.balances(placement_)) {
    const LoadBalance& balance = entry.balance;
    gauges.layers.push_back(
        {entry.moe_layer, entry.token_class, balance.rank_max_over_mean, balance.rank_gini, balance.expert_gini});
  }
  metrics_.set_loads(std::move(gauges));
}

void LoadWatch::warn(double max_over_mean) const {
  const std::vector<ClassBalance> balances = window_.balances(placement_);
  const auto worst = std::max_element(balances.begin(), balances.end(), [](const ClassBalance& a, const ClassBalance& b) {
    return a.balance.rank_max_over_mean < b.balance.rank_max_over_mean;
  });
  LOG(WARNING) << "over " << kWindowSteps << " steps the fullest ranks had " << max_over_mean
               << " times the mean load (--imbalance_alarm " << threshold_ << "); worst is MoE layer " << worst->moe_layer << ", "
               << worst->token_class << " tokens, with " << worst->balance.rank_max_over_mean;
}

}  // namespace skipper
