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
  std::string policy;
  std::chrono::milliseconds deadline{0};
};

// {"policy": "quality", "policies": [..], "version": n, "staging": {"policy": .., "ranks_ready": n} | null, "last": {..} | null,
//  "switches": n, "failures": n, "moved_bytes": n, "staging_seconds": x,
//  "versions": [{"version": n, "policy": .., "step": n}, ..]}
HttpResponse policy_response(const PolicyReport& report);

// {"policy": NAME, "deadline_seconds": x}, the second from 0.001 to 3600 and 60 when it is left out. Throws InvalidRequest naming
// the field.
PolicyRequest parse_policy_request(const std::string& body);

}  // namespace skipper
