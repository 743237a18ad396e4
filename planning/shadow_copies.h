// Shadow copies: experts of other ranks in a low format, which stand in for a trip that is not worth its bytes.
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

#include "kernels/weight_format.h"
#include "planning/expert_plan.h"
#include "planning/plan_request.h"

namespace skipper {

struct ShadowRequest {
  WeightFormat format;
  std::vector<size_t> memory = {};  // [rank] for shadows alone; empty: what experts leave of the budgets
};

// ‖E_f(x) − E(x)‖² / ‖E(x)‖² of an expert whose three matrices are rounded to `format`, by the format alone: at most 1.
double relative_error(const WeightFormat& format);

// `request` without what shadows will take: its plan leaves them their memory. Throws ResourceExhausted where a rank has less.
PlanRequest without_shadow_memory(const PlanRequest& request, const ShadowRequest& shadows);

// Gives each rank shadows of other ranks' experts, those first that most tokens use, layer by layer among equals, as long as they
// fit in the host memory that `shadows` names, which is added to the plan's budgets. The plan has none yet, and no hashes.
void add_shadows(ExpertPlan& plan, const PlanRequest& request, const ShadowRequest& shadows);

}  // namespace skipper
