#include "audit/load_window.h"

#include <glog/logging.h>

#include <algorithm>
#include <numeric>

namespace skipper {

namespace {

constexpr double kQuietShare = 0.8;  // of what the threshold has over 1

}  // namespace

void LoadWindow::add(int64_t step, std::span<const int64_t> sums) {
  CHECK_EQ(sums.size(), shape_.num_counts());
  CHECK(snapshots_.empty() || snapshots_.back().step < step);
  // Before the first snapshot nothing had run: the server had just started.
  if (snapshots_.empty()) snapshots_.push_back({.step = -1, .sums = std::vector<int64_t>(sums.size(), 0)});
  snapshots_.push_back({.step = step, .sums = {sums.begin(), sums.end()}});
  while (snapshots_.size() > 2 && step - snapshots_[1].step >= num_steps_) snapshots_.pop_front();
}

bool LoadWindow::is_full() const {
  return !snapshots_.empty() && snapshots_.back().step - snapshots_.front().step >= num_steps_;
}

std::vector<int64_t> LoadWindow::loads_of(int moe_layer, size_t first_class, size_t end_class) const {
  std::vector<int64_t> loads(static_cast<size_t>(shape_.num_experts), 0);
  if (snapshots_.empty()) return loads;
  for (size_t token_class = first_class; token_class < end_class; ++token_class) {
    const size_t first = shape_.first_of(moe_layer, token_class);
    for (size_t e = 0; e < loads.size(); ++e) loads[e] += snapshots_.back().sums[first + e] - snapshots_.front().sums[first + e];
  }
  return loads;
}

std::vector<ClassBalance> LoadWindow::balances(const ExpertPlacement& placement) const {
  constexpr auto kText = static_cast<size_t>(TokenClass::kText);
  constexpr auto kVision = static_cast<size_t>(TokenClass::kVision);
  std::vector<ClassBalance> result;
  for (int layer = 0; layer < shape_.num_moe_layers; ++layer) {
    const auto add_balance = [&](std::string_view name, size_t first_class, size_t end_class) {
      const std::vector<int64_t> loads = loads_of(layer, first_class, end_class);
      result.push_back({layer, name, balance_of(loads, placement.homes(layer), placement.world_size())});
    };
    add_balance(kTokenClassNames[kText], kText, kText + 1);
    add_balance(kTokenClassNames[kVision], kVision, kVision + 1);
    add_balance("all", 0, kNumTokenClasses);
  }
  return result;
}

double LoadWindow::rank_max_over_mean(const ExpertPlacement& placement) const {
  int64_t sum_of_largest = 0, sum = 0;
  for (int layer = 0; layer < shape_.num_moe_layers; ++layer) {
    const std::vector<int64_t> ranks =
        loads_of_ranks(loads_of(layer, 0, kNumTokenClasses), placement.homes(layer), placement.world_size());
    sum_of_largest += *std::max_element(ranks.begin(), ranks.end());
    sum += std::accumulate(ranks.begin(), ranks.end(), int64_t{0});
  }
  return sum == 0 ? 1.0 : static_cast<double>(sum_of_largest) * placement.world_size() / static_cast<double>(sum);
}

bool ImbalanceAlarm::update(double max_over_mean) {
  if (threshold_ <= 0.0) return false;
  if (is_ringing_) {
    is_ringing_ = max_over_mean >= 1.0 + kQuietShare * (threshold_ - 1.0);
    return false;
  }
  is_ringing_ = max_over_mean > threshold_;
  num_alarms_ += is_ringing_ ? 1 : 0;
  return is_ringing_;
}

}  // namespace skipper
