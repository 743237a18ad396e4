// What the guard knows, for metrics and operators.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "cluster/step_plan.h"
#include "guard/guard_judge.h"
#include "guard/guard_reading.h"

namespace skipper {

struct GuardState {
  ExpertSet serving = ExpertSet::kServed;
  std::string served = {};        // name of the plan that the served experts follow
  uint32_t version = kFirstExpertVersion;  // of the served experts
  uint32_t term = 0;              // grows when the guard is armed again
  int64_t num_rollbacks = 0;      // since start
  int64_t rollback_step = -1;     // of the last one
  std::optional<GuardBreach> breach = {};  // that led to it; none once the guard is armed again
  std::string returns_to = {};    // the last good plan, being made ready while the reference serves; empty: none
  std::string stays = {};         // why none is, while the reference serves
  double relative_error = 0.0;    // of all rows compared since start, over all experts
  int64_t num_rows = 0;
  GuardReading worst = {};        // now
  double mean_kl = 0.0;           // of the last answers scored, nats per token
  int64_t num_scored_tokens = 0;  // since start
};

}  // namespace skipper
