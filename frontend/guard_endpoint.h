// What operators see of the guard, and how they arm it again: /admin/guard.
#pragma once

#include <string>

#include "frontend/http_message.h"
#include "guard/guard_state.h"

namespace skipper {

// {"serves": "plan.json" | "reference", "term": n, "rollbacks": n, "breach": {..} | null, "relative_error": x, "rows": n,
//  "worst": {..} | null, "kl": x, "scored_tokens": n}
HttpResponse guard_response(const GuardState& state);

// Throws InvalidRequest for a body that is not {"arm": true}.
void check_arming(const std::string& body);

}  // namespace skipper
