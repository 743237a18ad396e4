// What is known of the switches from one plan's experts to another's.
#pragma once

#include <cstdint>
#include <string>

#include "cluster/step_plan.h"

namespace skipper {

// A plan that can serve, as rank 0 knows it.
struct PolicyTraits {
  std::string name;
  double expert_bits = 0.0;  // per weight, mean over the experts
};

// What a version of the experts is.
struct ServedVersion {
  uint32_t version = kFirstExpertVersion;
  PolicyTraits policy;
  int64_t step = 0;  // the first one on it
};

// How a switch ended.
struct SwitchRecord {
  uint64_t request = 0;     // 0: none has ended yet
  std::string policy = {};  // that was asked for
  std::string failure = {};  // one line; empty: it serves
  int64_t step = -1;         // the first one on the new experts, or the one in which the switch was given up
  int64_t moved_bytes = 0;   // new copies, over all ranks
  double seconds = 0.0;      // of staging, on the slowest rank
};

struct SwitchState {
  std::string policy;          // that serves
  uint32_t version = kFirstExpertVersion;
  std::string staged_policy = {};  // being made ready; empty: none
  int ranks_ready = 0;
  SwitchRecord last;
  int64_t num_switches = 0;  // since start
  int64_t num_failures = 0;
  int64_t moved_bytes = 0;
  double staging_seconds = 0.0;
};

}  // namespace skipper
