// What operators change while the server runs, behind a key and on a listener of its own: /admin/operating_point, /admin/policy
// and /admin/guard.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cluster/operating_point.h"
#include "cluster/switched_off_layer.h"
#include "frontend/admin_key.h"
#include "frontend/endpoints.h"
#include "frontend/frontend_config.h"
#include "guard/guard_state.h"
#include "frontend/policy_endpoint.h"

namespace skipper {

// What is in force.
struct OperatingReport {
  LevelTable table;
  int level = 0;  // the global one
  std::vector<uint16_t> places = {};  // of the levels, as ceilings compare them
  std::vector<SwitchedOffLayer> switched_off = {};
};

// Thread-safe; the changes wait for the step that applies them. Throw InvalidRequest for what cannot be, Cancelled when no step
// came.
struct AdminHooks {
  std::function<OperatingReport()> report;
  std::function<OperatingReport(int64_t level)> set_level;
  std::function<OperatingReport(OperatingPoint point)> append;
  // Throw InvalidRequest when there is no guard.
  std::function<GuardState()> guard_state = nullptr;
  std::function<GuardState()> arm_guard = nullptr;
  // Throw InvalidRequest when there are no policies; the second Cancelled when the switch is given up.
  std::function<PolicyReport()> policies = nullptr;
  std::function<PolicyReport(const PolicyRequest& request)> switch_policy = nullptr;
};

struct AdminContext {
  AdminKey key;
  ModelIdentity model;
  PlacementWorld world;
  std::vector<std::string> measured;  // of each level of the file, a JSON object; empty: nothing
  AdminHooks hooks;
};

// Limits of a listener on `port` of 127.0.0.1 for few, small requests.
FrontendConfig admin_frontend_config(int port);

// GET tells what is in force; POST {"level": n} chooses a level, POST of a whole operating point makes it one and chooses it, and
// both answer with what is then in force. The same of the guard, which POST {"arm": true} arms again, and of policies, to which
// POST {"policy": NAME} switches. Everything else, and every request without the key, is refused in OpenAI's shape.
EndpointTable make_admin_endpoints(std::shared_ptr<const AdminContext> context);

}  // namespace skipper
