// Which flags of plans, and of tenants that plan for their share, go together.
#pragma once

#include "launcher/flags.h"

namespace skipper {

// Of `skipper plan`, and of commands that plan when they start. Throws UsageError.
void check_plan_flags(const CommandLine& line);

// Of `skipper tenants`, and of servers that share a host's memory. Throws UsageError.
void check_tenant_flags(const CommandLine& line);

}  // namespace skipper
