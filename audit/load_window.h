// The balance of the last steps over all ranks, and the alarm that rings while it stays bad.
#pragma once

#include <cstdint>
#include <deque>
#include <span>
#include <string_view>
#include <vector>

#include "audit/expert_load.h"
#include "audit/imbalance.h"

namespace skipper {

// One layer and class of the window.
struct ClassBalance {
  int moe_layer = 0;
  std::string_view token_class;  // of kTokenClassNames, or "all"
  LoadBalance balance;
};

// What fell on experts and ranks over the last `num_steps` steps. Engine thread of rank 0.
class LoadWindow {
 public:
  LoadWindow(const ExpertLoadShape& shape, int64_t num_steps) : shape_(shape), num_steps_(num_steps) {}

  // sums = ExpertLoad::counts() added up over the ranks, since start. Steps ascend.
  void add(int64_t step, std::span<const int64_t> sums);

  // Has seen `num_steps` steps.
  bool is_full() const;
  // text, vision and all classes together, for each layer.
  std::vector<ClassBalance> balances(const ExpertPlacement& placement) const;
  // What the steps of the window took because of the fullest rank of each layer: Σ largest load ÷ Σ mean load over the layers.
  double rank_max_over_mean(const ExpertPlacement& placement) const;

 private:
  struct Snapshot {
    int64_t step = 0;
    std::vector<int64_t> sums;
  };
  std::vector<int64_t> loads_of(int moe_layer, size_t first_class, size_t end_class) const;

  ExpertLoadShape shape_;
  int64_t num_steps_;
  std::deque<Snapshot> snapshots_;  // oldest first; the window is the newest minus the oldest
};

// Rings when the figure of a whole window exceeds the threshold; goes quiet when it has lost a fifth of what the threshold has
// over 1, so that a figure at the threshold does not ring again and again.
class ImbalanceAlarm {
 public:
  // threshold 0: off.
  explicit ImbalanceAlarm(double threshold) : threshold_(threshold) {}

  // True when it starts to ring.
  bool update(double max_over_mean);
  bool is_ringing() const { return is_ringing_; }
  int64_t num_alarms() const { return num_alarms_; }

 private:
  double threshold_;
  bool is_ringing_ = false;
  int64_t num_alarms_ = 0;
};

}  // namespace skipper
