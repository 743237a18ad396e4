// Rank 0's half of a switch: which plan's experts each step runs on, and when all ranks change.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "cluster/step_plan.h"
#include "cluster/switch_state.h"
#include "engine/staging_report.h"

namespace skipper {

// A switch is asked for, staged on all ranks, and in force from the next step on once all are ready. One that fails on any
// rank, or is late, is given up on all: the old experts never stop serving.
class ExpertSwitch {
 public:
  // Of the policies `first` serves; without any there is nothing to switch.
  ExpertSwitch(std::vector<PolicyTraits> policies, uint16_t first);

  bool has_policies() const { return !policies_.empty(); }
  const std::vector<PolicyTraits>& policies() const { return policies_; }

  // Thread-safe. The number of the request. Throws InvalidRequest for a policy that does not exist, Cancelled while another
  // switch is under way.
  uint64_t request(const std::string& policy, std::chrono::milliseconds deadline);
  // Until the request has ended, or close().
  SwitchState wait_until_ended(uint64_t request);
  SwitchState state() const;
  bool is_under_way() const;
  // The versions that have served, the one that serves last; the oldest are forgotten in the end.
  std::vector<ServedVersion> versions() const;
  // The policy of a version, "reference" of kReferenceVersion; without a name for one that is forgotten.
  PolicyTraits policy_of(uint32_t version) const;
  void close();

  // Engine thread: what the next step runs on.
  ExpertOrder order() const;
  // Engine thread, after a step: reports[r] of rank r where the step's order was staging.
  void end_step(int64_t step, const ExpertOrder& order, std::span<const StagingReport> reports);

 private:
  using Clock = std::chrono::steady_clock;
  uint16_t index_of(const std::string& policy) const;
  void judge(int64_t step, std::span<const StagingReport> reports);
  void give_up(int64_t step, std::string failure);
  void end_request(SwitchRecord record);

  const std::vector<PolicyTraits> policies_;
  mutable std::mutex mutex_;
  std::condition_variable ended_;
  bool is_closed_ = false;
  ExpertOrder order_;
  uint32_t last_version_ = kFirstExpertVersion;  // that was ever ordered
  bool is_changing_ = false;  // all are ready, and no step on the new experts has ended yet
  uint64_t num_requests_ = 0;
  std::chrono::milliseconds patience_{0};
  Clock::time_point deadline_;
  SwitchRecord coming_;
  SwitchState state_;
  std::deque<ServedVersion> versions_;
};

}  // namespace skipper
