// Decides in which layers and phases skipping does not pay.
#pragma once

#include <bitset>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "cluster/operating_point.h"
#include "engine/level_map.h"
#include "engine/skip_gate_config.h"
#include "expert_parallel/skip_meter.h"

namespace skipper {

using LevelSet = std::bitset<kMaxLevels>;

// One layer and phase.
struct SkipSwitch {
  bool is_off = false;
  double cost = 0.0;    // seconds that deciding took in the last window that told; 0 before
  double saving = 0.0;  // seconds that running what was skipped in it would have taken
};

// Compares, window by window, what deciding took with what the skipped pairs would have taken: as many times the mean of those
// that ran. Two windows in which deciding took more switch a layer and phase off; after a pause it gets another window to prove
// itself, and the pause doubles each time it does not. Only windows with enough decided pairs tell. What was judged are the
// levels that ran: another one turns all on. Rank 0, engine thread only.
class SkipGate {
 public:
  SkipGate(const SkipGateConfig& config, int num_moe_layers);

  // After a step with tokens of these levels; costs = SkipMeter::costs(). True when a switch changed.
  bool observe(std::span<const SkipCost> costs, const LevelSet& levels);
  // All on, and nothing known: other thresholds apply.
  void reset(std::span<const SkipCost> costs);
  // All on, until reset().
  void stop();

  std::span<const SkipSwitch> switches() const { return switches_; }  // [MoE layer][phase]
  ExemptLayers exempt_layers() const;
  int64_t num_changes() const { return num_changes_; }

 private:
  struct Trial {
    int64_t num_bad_windows = 0;   // one after the other
    int64_t windows_left = 0;      // of the pause
    int64_t pause = kFirstPause;   // in windows
    double seconds_per_pair = 0.0;  // of those that ran, known last; 0: never
  };
  static constexpr int64_t kFirstPause = 8;

  bool is_any_off() const;
  void turn_all_on();
  bool end_window(std::span<const SkipCost> costs);
  bool judge(size_t index, const SkipCost& window);
  bool judge_cost(size_t index);
  void turn(size_t index, const std::string& reason);

  SkipGateConfig config_;
  std::vector<SkipSwitch> switches_;
  std::vector<Trial> trials_;
  std::vector<SkipCost> window_begin_;
  LevelSet window_levels_;
  LevelSet last_levels_;    // of the window before
  LevelSet judged_levels_;  // of the windows that switched something off
  int64_t steps_left_;
  bool is_stopped_ = false;
  int64_t num_changes_ = 0;
};

}  // namespace skipper
