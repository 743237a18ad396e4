// What is known of the switches from one plan's experts to another's.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cluster/step_plan.h"

namespace skipper {

// A plan that can serve, as rank 0 knows it.
struct PolicyTraits {
  std::string name;
  double expert_bits = 0.0;   // per weight, mean over the experts
  double loss = 0.0;          // predicted, see PlanPrediction
  std::string profile = {};   // by which the loss was predicted; losses by different ones do not compare
};

// The lowest policy that a request may run under, as its service tier says. Policies count from the best, 0.
struct PolicyFloor {
  static constexpr uint16_t kAny = UINT16_MAX;

  uint16_t lowest = kAny;
  std::string tier = {};
};

// A plan that an operator asks for while the server runs.
struct PostedPlan {
  PolicyTraits policy;
  std::string text;  // as in plan.json
};

struct SwitchRequest {
  std::string policy;                   // one of the server's; of a posted plan, its name
  std::chrono::milliseconds deadline{0};
  size_t extra_bytes = 0;               // of each rank's memory, beyond its budget, while old and new experts are both there
  std::optional<PostedPlan> plan = {};
  bool mends = false;                   // as ExpertOrder::mends; then the policy that serves can be asked for as well
};

// What a version of the experts is.
struct ServedVersion {
  uint32_t version = kFirstExpertVersion;
  PolicyTraits policy;
  int64_t step = 0;  // the first one on it
};

// Of one rank's process, resident bytes.
struct SwitchMemory {
  int64_t before = 0;     // when the new experts were ordered
  int64_t with_both = 0;  // when they were ready
  int64_t after = 0;      // when the old ones were freed
};

// How a switch ended.
struct SwitchRecord {
  uint64_t request = 0;     // 0: none has ended yet
  std::string policy = {};  // that was asked for
  std::string failure = {};  // one line; empty: it serves
  int64_t step = -1;         // the first one on the new experts, or the one in which the switch was given up
  int64_t moved_bytes = 0;   // new copies, over all ranks
  double seconds = 0.0;      // of staging, on the slowest rank
  // From the first step on the new experts until the old ones were freed, on the slowest rank; none when the deadline came first.
  std::optional<double> freed_seconds = {};
  std::vector<SwitchMemory> memory = {};  // of each rank; empty unless freed
};

struct SwitchState {
  std::string policy;          // that serves
  double predicted_loss = 0.0;  // of its plan
  uint32_t version = kFirstExpertVersion;
  std::string staged_policy = {};  // being made ready; empty: none
  int ranks_ready = 0;
  std::string waits_for_tier = {};  // whose requests have to end before the staged policy may serve; empty: none
  SwitchRecord last;
  int64_t num_switches = 0;  // since start
  int64_t num_failures = 0;
  int64_t moved_bytes = 0;
  double staging_seconds = 0.0;
};

}  // namespace skipper
