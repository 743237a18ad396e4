#include "engine/skip_gate.h"

#include <glog/logging.h>

#include <algorithm>

#include "base/config_limit.h"

namespace skipper {
namespace {

constexpr int64_t kLeastPairs = 256;    // decided in a window that tells
constexpr int64_t kBadWindows = 2;      // that switch off what was never off
constexpr int64_t kLongestPause = 512;  // in windows

}  // namespace

void SkipGateConfig::validate() const {
  require({.key = "skipping.window_steps", .value = window_steps, .min = 1, .max = 1'000'000'000});
}

SkipGate::SkipGate(const SkipGateConfig& config, int num_moe_layers)
    : config_(config),
      switches_(static_cast<size_t>(num_moe_layers) * kNumTokenPhases),
      trials_(switches_.size()),
      window_begin_(switches_.size()),
      steps_left_(config.window_steps) {}

bool SkipGate::observe(std::span<const SkipCost> costs, const LevelSet& levels) {
  if (!config_.switch_off || is_stopped_ || costs.empty()) return false;
  CHECK_EQ(costs.size(), switches_.size());
  if (is_any_off() && (levels & ~judged_levels_).any()) {
    reset(costs);
    return true;
  }
  window_levels_ |= levels;
  if (--steps_left_ > 0) return false;
  steps_left_ = config_.window_steps;
  return end_window(costs);
}

bool SkipGate::is_any_off() const { return std::ranges::any_of(switches_, &SkipSwitch::is_off); }

void SkipGate::turn_all_on() {
  for (const SkipSwitch& one : switches_) num_changes_ += one.is_off ? 1 : 0;
  std::ranges::fill(switches_, SkipSwitch{});
  std::ranges::fill(trials_, Trial{});
  window_levels_.reset();
  last_levels_.reset();
  judged_levels_.reset();
}

void SkipGate::stop() {
  turn_all_on();
  is_stopped_ = true;
}

void SkipGate::reset(std::span<const SkipCost> costs) {
  turn_all_on();
  is_stopped_ = false;
  if (!costs.empty()) window_begin_.assign(costs.begin(), costs.end());
  steps_left_ = config_.window_steps;
}

bool SkipGate::end_window(std::span<const SkipCost> costs) {
  bool has_changed = false;
  for (size_t index = 0; index < switches_.size(); ++index) {
    SkipCost window = costs[index];
    window -= window_begin_[index];
    has_changed |= judge(index, window);
  }
  if (has_changed && is_any_off()) judged_levels_ |= window_levels_ | last_levels_;
  last_levels_ = window_levels_;
  window_levels_.reset();
  window_begin_.assign(costs.begin(), costs.end());
  return has_changed;
}

bool SkipGate::judge(size_t index, const SkipCost& window) {
  SkipSwitch& one = switches_[index];
  Trial& trial = trials_[index];
  if (window.pairs_run > 0) trial.seconds_per_pair = window.running_seconds / static_cast<double>(window.pairs_run);
  if (one.is_off) {
    if (--trial.windows_left > 0) return false;
    turn(index, "is tried again");
    return true;
  }
  const bool tells = window.pairs_decided >= kLeastPairs && (trial.seconds_per_pair > 0.0 || window.pairs_skipped == 0);
  if (!tells) return false;
  one.cost = window.deciding_seconds;
  one.saving = trial.seconds_per_pair * static_cast<double>(window.pairs_skipped);
  return judge_cost(index);
}

bool SkipGate::judge_cost(size_t index) {
  const SkipSwitch& one = switches_[index];
  Trial& trial = trials_[index];
  if (one.cost <= one.saving) {
    trial.num_bad_windows = 0;
    trial.pause = kFirstPause;
    return false;
  }
  const bool was_off_before = trial.pause > kFirstPause;
  if (++trial.num_bad_windows < kBadWindows && !was_off_before) return false;
  trial.num_bad_windows = 0;
  trial.windows_left = trial.pause;
  trial.pause = std::min(2 * trial.pause, kLongestPause);
  turn(index, "is switched off");
  return true;
}

void SkipGate::turn(size_t index, const std::string& reason) {
  SkipSwitch& one = switches_[index];
  one.is_off = !one.is_off;
  ++num_changes_;
  LOG(INFO) << "skipping in MoE layer " << index / kNumTokenPhases << ", " << kTokenPhaseNames[index % kNumTokenPhases]
            << " tokens, " << reason << ": over " << config_.window_steps << " steps deciding took " << 1e3 * one.cost
            << " ms and saved " << 1e3 * one.saving << " ms";
}

ExemptLayers SkipGate::exempt_layers() const {
  ExemptLayers exempt;
  for (size_t index = 0; index < switches_.size(); ++index) {
    if (!switches_[index].is_off) continue;
    std::vector<uint8_t>& layers = exempt[index % kNumTokenPhases];
    layers.resize(switches_.size() / kNumTokenPhases, 0);
    layers[index / kNumTokenPhases] = 1;
  }
  return exempt;
}

}  // namespace skipper
