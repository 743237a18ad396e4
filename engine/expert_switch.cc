#include "engine/expert_switch.h"

#include <glog/logging.h>

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace skipper {
namespace {

// That are remembered; requests seldom outlive one.
constexpr size_t kMaxVersions = 256;

}  // namespace

ExpertSwitch::ExpertSwitch(std::vector<PolicyTraits> policies, uint16_t first) : policies_(std::move(policies)) {
  order_.policy = first;
  if (!has_policies()) return;
  state_.policy = policies_.at(first).name;
  versions_.push_back({.version = order_.version, .policy = policies_[first]});
}

uint16_t ExpertSwitch::index_of(const std::string& policy) const {
  const auto found = std::ranges::find(policies_, policy, &PolicyTraits::name);
  if (found != policies_.end()) return static_cast<uint16_t>(found - policies_.begin());
  std::string names;
  for (const PolicyTraits& one : policies_) names += (names.empty() ? "" : ", ") + one.name;
  throw InvalidRequest("policy: there is no '" + policy.substr(0, 100) + "'; this server has " + names, "policy");
}

uint64_t ExpertSwitch::request(const std::string& policy, std::chrono::milliseconds deadline) {
  const uint16_t index = index_of(policy);
  const std::lock_guard lock(mutex_);
  if (order_.is_staging() || is_changing_) {
    throw Cancelled("the switch to " + state_.staged_policy + " is under way; ask again when it has ended");
  }
  const uint64_t request = ++num_requests_;
  if (index == order_.policy) {
    end_request({.request = request, .policy = policy, .failure = {}, .step = state_.last.step});
    return request;
  }
  order_.staged_version = ++last_version_;
  order_.staged_policy = index;
  patience_ = deadline;
  deadline_ = Clock::now() + deadline;
  coming_ = {.request = request, .policy = policy};
  state_.staged_policy = policy;
  state_.ranks_ready = 0;
  return request;
}

SwitchState ExpertSwitch::wait_until_ended(uint64_t request) {
  std::unique_lock lock(mutex_);
  ended_.wait(lock, [&] { return is_closed_ || state_.last.request >= request; });
  if (state_.last.request < request) throw Cancelled("the server is stopping; nothing was switched");
  return state_;
}

SwitchState ExpertSwitch::state() const {
  const std::lock_guard lock(mutex_);
  return state_;
}

bool ExpertSwitch::is_under_way() const {
  const std::lock_guard lock(mutex_);
  return order_.is_staging() || is_changing_;
}

std::vector<ServedVersion> ExpertSwitch::versions() const {
  const std::lock_guard lock(mutex_);
  return {versions_.begin(), versions_.end()};
}

PolicyTraits ExpertSwitch::policy_of(uint32_t version) const {
  if (version == kReferenceVersion) return {.name = "reference"};
  const std::lock_guard lock(mutex_);
  const auto found = std::ranges::find(versions_, version, &ServedVersion::version);
  return found == versions_.end() ? PolicyTraits() : found->policy;
}

void ExpertSwitch::close() {
  const std::lock_guard lock(mutex_);
  is_closed_ = true;
  ended_.notify_all();
}

ExpertOrder ExpertSwitch::order() const {
  const std::lock_guard lock(mutex_);
  return order_;
}

void ExpertSwitch::end_step(int64_t step, const ExpertOrder& order, std::span<const StagingReport> reports) {
  const std::lock_guard lock(mutex_);
  if (is_changing_ && order.version == order_.version) {
    coming_.step = step;
    is_changing_ = false;
    state_.version = order_.version;
    state_.policy = policies_[order_.policy].name;
    ++state_.num_switches;
    state_.moved_bytes += coming_.moved_bytes;
    state_.staging_seconds += coming_.seconds;
    LOG(INFO) << "switched to policy=" << state_.policy << " version=" << state_.version << " step=" << step
              << " moved_bytes=" << coming_.moved_bytes << " staging_seconds=" << coming_.seconds;
    return end_request(std::move(coming_));
  }
  // A request that came during the step is in no rank's answer yet.
  if (order.is_staging() && order.staged_version == order_.staged_version) judge(step, reports);
}

void ExpertSwitch::judge(int64_t step, std::span<const StagingReport> reports) {
  coming_.moved_bytes = 0;
  state_.ranks_ready = 0;
  for (size_t rank = 0; rank < reports.size(); ++rank) {
    const StagingReport& report = reports[rank];
    if (report.state == StagingState::kFailed) {
      return give_up(step, "rank " + std::to_string(rank) + ": " + std::string(report.reason_text()));
    }
    if (report.state == StagingState::kReady) ++state_.ranks_ready;
    coming_.moved_bytes += report.moved_bytes;
    coming_.seconds = std::max(coming_.seconds, report.seconds);
  }
  if (Clock::now() < deadline_) {
    if (state_.ranks_ready < static_cast<int>(reports.size())) return;
    order_.version = order_.staged_version;
    order_.policy = order_.staged_policy;
    is_changing_ = true;
    // Before any token of it is delivered.
    versions_.push_back({.version = order_.version, .policy = policies_[order_.policy], .step = step + 1});
    if (versions_.size() > kMaxVersions) versions_.pop_front();
    return;
  }
  give_up(step, "the new experts were not ready within " + std::to_string(patience_.count()) + " ms; give more deadline_seconds");
}

void ExpertSwitch::give_up(int64_t step, std::string failure) {
  LOG(ERROR) << "no switch to policy=" << coming_.policy << ": " << failure;
  order_.staged_version = order_.version;
  order_.staged_policy = order_.policy;
  ++state_.num_failures;
  coming_.step = step;
  coming_.moved_bytes = 0;
  coming_.failure = std::move(failure);
  end_request(std::move(coming_));
}

void ExpertSwitch::end_request(SwitchRecord record) {
  state_.last = std::move(record);
  state_.staged_policy.clear();
  state_.ranks_ready = 0;
  coming_ = {};
  ended_.notify_all();
}

}  // namespace skipper
