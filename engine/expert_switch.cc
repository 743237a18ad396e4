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
  serving_ = policies_.at(first);
  state_.policy = serving_.name;
  state_.predicted_loss = serving_.loss;
  versions_.push_back({.version = order_.version, .policy = serving_});
}

uint16_t ExpertSwitch::index_of(const std::string& policy) const {
  const auto found = std::ranges::find(policies_, policy, &PolicyTraits::name);
  if (found != policies_.end()) return static_cast<uint16_t>(found - policies_.begin());
  std::string names;
  for (const PolicyTraits& one : policies_) names += (names.empty() ? "" : ", ") + one.name;
  throw InvalidRequest("policy: there is no '" + policy.substr(0, 100) + "'; this server has " + names, "policy");
}

// A posted plan stands beside the best of the policies that is predicted to lose no less, and below all when none is.
uint16_t ExpertSwitch::place_of(uint16_t index, const PolicyTraits& policy) const {
  if (index != kPostedPolicy) return index;
  const auto found = std::ranges::find_if(policies_, [&](const PolicyTraits& other) {
    return other.profile == policy.profile && other.loss >= policy.loss;
  });
  return static_cast<uint16_t>(found - policies_.begin());
}

uint64_t ExpertSwitch::request(SwitchRequest wish) {
  const uint16_t index = wish.plan ? kPostedPolicy : index_of(wish.policy);
  const std::lock_guard lock(mutex_);
  if (phase_ != Phase::kServing) {
    throw Cancelled("the switch to " + coming_.policy + " is under way; ask again when it has ended");
  }
  distrusted_.erase(wish.policy);
  return begin(index, std::move(wish));
}

std::string ExpertSwitch::return_to_last_good(std::chrono::milliseconds deadline) {
  const std::lock_guard lock(mutex_);
  CHECK(phase_ == Phase::kServing) << "a switch is under way";
  distrusted_.insert(serving_.name);
  const auto is_good = [this](const ServedVersion& one) {
    const bool is_policy = std::ranges::find(policies_, one.policy.name, &PolicyTraits::name) != policies_.end();
    return is_policy && !distrusted_.contains(one.policy.name);
  };
  const auto last = std::find_if(versions_.rbegin(), versions_.rend(), is_good);
  if (last == versions_.rend()) return {};
  const std::string policy = last->policy.name;
  begin(index_of(policy), {.policy = policy, .deadline = deadline, .mends = true});
  return policy;
}

uint64_t ExpertSwitch::begin(uint16_t index, SwitchRequest wish) {
  const uint64_t request = ++num_requests_;
  if (index == order_.policy && index != kPostedPolicy && !wish.mends) {
    end_request({.request = request, .policy = wish.policy, .failure = {}, .step = state_.last.step});
    return request;
  }
  phase_ = Phase::kStaging;
  order_.staged_version = ++last_version_;
  order_.staged_policy = index;
  order_.extra_bytes = wish.extra_bytes;
  order_.mends = wish.mends;
  staged_ = wish.plan ? std::move(wish.plan->policy) : policies_[index];
  posted_plan_ = wish.plan ? std::move(wish.plan->text) : std::string();
  patience_ = wish.deadline;
  deadline_ = Clock::now() + wish.deadline;
  coming_ = {.request = request, .policy = staged_.name};
  state_.staged_policy = staged_.name;
  state_.ranks_ready = 0;
  return request;
}

SwitchState ExpertSwitch::wait_until_ended(uint64_t request) {
  std::unique_lock lock(mutex_);
  ended_.wait(lock, [&] { return is_closed_ || state_.last.request >= request; });
  if (state_.last.request < request) throw Cancelled("the server is stopping; the switch has not ended");
  return state_;
}

SwitchState ExpertSwitch::state() const {
  const std::lock_guard lock(mutex_);
  return state_;
}

bool ExpertSwitch::is_under_way() const {
  const std::lock_guard lock(mutex_);
  return phase_ != Phase::kServing;
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

std::string ExpertSwitch::refusal(const PolicyFloor& floor) const {
  if (floor.lowest == PolicyFloor::kAny || !has_policies()) return {};
  const std::lock_guard lock(mutex_);
  const bool is_staging = phase_ == Phase::kStaging;
  const std::string needs = "service_tier " + floor.tier + " needs policy " + policies_.at(floor.lowest).name +
                            (floor.lowest > 0 ? " or a better one" : "");
  if (place_of(order_.policy, serving_) > floor.lowest) {
    return needs + ", but " + serving_.name + " serves; try again later, or with another tier";
  }
  if (is_staging && place_of(order_.staged_policy, staged_) > floor.lowest) {
    return needs + ", but the server is about to change to " + staged_.name + "; try again later, or with another tier";
  }
  return {};
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

std::string ExpertSwitch::take_posted_plan(const ExpertOrder& order) {
  const std::lock_guard lock(mutex_);
  if (!order.is_staging() || order.staged_version != order_.staged_version) return {};
  return std::exchange(posted_plan_, {});
}

void ExpertSwitch::end_step(int64_t step, const ExpertOrder& order, std::span<const StagingReport> reports,
                            const PolicyFloor& strictest) {
  const std::lock_guard lock(mutex_);
  // A request that came during the step is in no rank's answer yet.
  if (phase_ == Phase::kStaging && order.is_staging() && order.staged_version == order_.staged_version) {
    return judge(step, reports, strictest);
  }
  if (phase_ == Phase::kChanging && order.version == order_.version) return take_over(step);
  if (phase_ == Phase::kFreeing && order.is_freeing) wait_for_memory(reports);
}

void ExpertSwitch::judge(int64_t step, std::span<const StagingReport> reports, const PolicyFloor& strictest) {
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
  const bool is_ready = state_.ranks_ready == static_cast<int>(reports.size());
  const bool must_wait = strictest.lowest < place_of(order_.staged_policy, staged_);
  state_.waits_for_tier = must_wait ? strictest.tier : std::string();
  if (!is_late() && is_ready && !must_wait) return change(step);
  if (!is_late()) return;
  const std::string patience = " within " + std::to_string(patience_.count()) + " ms; give more deadline_seconds";
  if (is_ready) return give_up(step, "requests of service_tier " + strictest.tier + ", whose lowest policy is " +
                                         policies_.at(strictest.lowest).name + ", did not end" + patience);
  give_up(step, "the new experts were not ready" + patience);
}

void ExpertSwitch::change(int64_t step) {
  phase_ = Phase::kChanging;
  order_.version = order_.staged_version;
  order_.policy = order_.staged_policy;
  serving_ = staged_;
  // Before any token of it is delivered.
  versions_.push_back({.version = order_.version, .policy = serving_, .step = step + 1});
  if (versions_.size() > kMaxVersions) versions_.pop_front();
}

void ExpertSwitch::take_over(int64_t step) {
  phase_ = Phase::kFreeing;
  order_.is_freeing = true;
  coming_.step = step;
  state_.version = order_.version;
  state_.policy = serving_.name;
  state_.predicted_loss = serving_.loss;
  state_.staged_policy.clear();
  ++state_.num_switches;
  state_.moved_bytes += coming_.moved_bytes;
  state_.staging_seconds += coming_.seconds;
  LOG(INFO) << "switched to policy=" << state_.policy << " version=" << state_.version << " step=" << step
            << " moved_bytes=" << coming_.moved_bytes << " staging_seconds=" << coming_.seconds;
}

void ExpertSwitch::wait_for_memory(std::span<const StagingReport> reports) {
  const bool is_freed = std::ranges::all_of(reports, [](const StagingReport& r) { return r.state == StagingState::kFreed; });
  if (!is_freed && !is_late()) return;
  if (is_freed) {
    coming_.freed_seconds = 0.0;
    for (const StagingReport& report : reports) {
      coming_.freed_seconds = std::max(*coming_.freed_seconds, report.freed_seconds);
      coming_.memory.push_back(report.memory);
    }
  } else {
    LOG(WARNING) << "policy=" << serving_.name << " serves, but its deadline came before the old experts were freed";
  }
  order_.is_freeing = false;
  end_request(std::move(coming_));
}

void ExpertSwitch::give_up(int64_t step, std::string failure) {
  LOG(ERROR) << "no switch to policy=" << coming_.policy << ": " << failure;
  if (order_.mends) distrusted_.insert(coming_.policy);
  order_.staged_version = order_.version;
  order_.staged_policy = order_.policy;
  ++state_.num_failures;
  coming_.step = step;
  coming_.moved_bytes = 0;
  coming_.failure = std::move(failure);
  end_request(std::move(coming_));
}

void ExpertSwitch::end_request(SwitchRecord record) {
  phase_ = Phase::kServing;
  order_.mends = false;
  state_.last = std::move(record);
  state_.staged_policy.clear();
  state_.waits_for_tier.clear();
  state_.ranks_ready = 0;
  posted_plan_.clear();
  coming_ = {};
  ended_.notify_all();
}

}  // namespace skipper
