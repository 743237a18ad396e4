// Rank 0's half of a switch: which plan's experts each step runs on, and when all ranks change.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "cluster/step_plan.h"
#include "cluster/switch_state.h"
#include "engine/staging_report.h"

namespace skipper {

// A switch is asked for, staged on all ranks, in force from the next step on once all are ready, and over when the old experts
// are freed. One that fails on any rank, or is late, is given up on all: the old experts never stop serving.
class ExpertSwitch {
 public:
  // The policies, the best first, of which that at `first` serves; without any there is nothing to switch.
  ExpertSwitch(std::vector<PolicyTraits> policies, uint16_t first);

  bool has_policies() const { return !policies_.empty(); }
  const std::vector<PolicyTraits>& policies() const { return policies_; }

  // Thread-safe. The number of the request. Throws InvalidRequest for a policy that does not exist, Cancelled while another
  // switch is under way.
  uint64_t request(SwitchRequest wish);
  // Engine thread, while no switch is under way, when the experts that serve were found wrong: asks for the last policy that has
  // served before and was not, and returns its name; empty when there is none. An operator who asks for a policy trusts it again.
  std::string return_to_last_good(std::chrono::milliseconds deadline);
  // Until the request has ended, or close().
  SwitchState wait_until_ended(uint64_t request);
  SwitchState state() const;
  bool is_under_way() const;
  // The versions that have served, the one that serves last; the oldest are forgotten in the end.
  std::vector<ServedVersion> versions() const;
  // The policy of a version, "reference" of kReferenceVersion; without a name for one that is forgotten.
  PolicyTraits policy_of(uint32_t version) const;
  // Why a request with this floor cannot run now: a lower policy serves, or is being made ready. Empty: it can.
  std::string refusal(const PolicyFloor& floor) const;
  void close();

  // Engine thread: what the next step runs on.
  ExpertOrder order() const;
  // Engine thread: the text of the posted plan that `order` stages, once; else empty.
  std::string take_posted_plan(const ExpertOrder& order);
  // Engine thread, after a step: reports[r] of rank r where the step's order wanted reports; `strictest` of the floors of all
  // requests that have not ended.
  void end_step(int64_t step, const ExpertOrder& order, std::span<const StagingReport> reports,
                const PolicyFloor& strictest = {});

 private:
  using Clock = std::chrono::steady_clock;
  enum class Phase : uint8_t {
    kServing,   // nothing is under way
    kStaging,
    kChanging,  // all are ready, and no step on the new experts has ended yet
    kFreeing,   // the old experts
  };

  uint16_t index_of(const std::string& policy) const;
  uint64_t begin(uint16_t index, SwitchRequest wish);
  uint16_t place_of(uint16_t index, const PolicyTraits& policy) const;
  void judge(int64_t step, std::span<const StagingReport> reports, const PolicyFloor& strictest);
  void change(int64_t step);
  void take_over(int64_t step);
  void wait_for_memory(std::span<const StagingReport> reports);
  void give_up(int64_t step, std::string failure);
  void end_request(SwitchRecord record);
  bool is_late() const { return Clock::now() >= deadline_; }

  const std::vector<PolicyTraits> policies_;
  mutable std::mutex mutex_;
  std::condition_variable ended_;
  bool is_closed_ = false;
  Phase phase_ = Phase::kServing;
  ExpertOrder order_;
  PolicyTraits serving_, staged_;
  std::string posted_plan_;  // of staged_, until a step has taken it
  uint32_t last_version_ = kFirstExpertVersion;  // that was ever ordered
  uint64_t num_requests_ = 0;
  std::chrono::milliseconds patience_{0};
  Clock::time_point deadline_;
  SwitchRecord coming_;
  SwitchState state_;
  std::deque<ServedVersion> versions_;
  std::set<std::string> distrusted_;  // policies whose experts were found wrong, or could not be made again
};

}  // namespace skipper
