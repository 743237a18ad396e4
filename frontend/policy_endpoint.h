// What operators see of the plans that a server can switch between, and how they switch: /admin/policy.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "cluster/switch_state.h"
#include "frontend/http_message.h"

namespace skipper {

struct PolicyReport {
  std::vector<std::string> policies;
  SwitchState state;
  std::vector<ServedVersion> versions = {};
};

struct PolicyRequest {
  std::string policy;  // empty: a plan for `memory`
  std::string memory;  // of each rank, as --memory has it
  std::chrono::milliseconds deadline{0};
  std::string extra_memory = {};  // of each rank while old and new experts are both there; empty: none
};

// {"policy": "quality", "predicted_loss": x, "policies": [..], "version": n, "last": {..} | null,
//  "staging": {"policy": .., "ranks_ready": n, "waits_for_tier": TIER | null} | null,
//  "switches": n, "failures": n, "moved_bytes": n, "staging_seconds": x,
//  "versions": [{"version": n, "policy": .., "step": n}, ..]}
HttpResponse policy_response(const PolicyReport& report);

// {"policy": NAME} or {"memory": SIZE or [SIZE, ..]}, with "deadline_seconds" from 0.001 to 3600, 60 when it is left out, and
// "extra_memory": SIZE. Throws InvalidRequest naming the field.
PolicyRequest parse_policy_request(const std::string& body);

}  // namespace skipper
