// Scoring reads the logits of every token, a server those of a few: how many at once a plan for serving has room for.
#pragma once

#include <string>

#include "configs/server_config.h"
#include "launcher/budget_planner.h"
#include "planning/expert_plan.h"

namespace skipper {

// Lowers engine.max_logit_rows until the step buffers of all ranks fit into what the plan has for them, so that scoring takes
// more steps with the same results. The same on every rank. Throws Error where not even a row for each sequence fits; `where`
// names the plan.
void fit_logit_rows(const ExpertPlan& plan, const std::string& where, const PlannedGroup& group, ServerConfig& config);

}  // namespace skipper
