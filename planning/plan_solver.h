// From budgets to a plan: formats and tiers for the group as a whole, then ranks, then each rank's own budget to the last byte.
#pragma once

#include "planning/plan_problem.h"

namespace skipper {

// The plan, checked, without hashes. No plan within the budgets is better by more than its certificate's gap; where all experts
// are in one memory of one rank and few, it is the best. Throws ResourceExhausted naming what is short: memory for the
// smallest formats (find_shortage() says how much), or for a loss as low as max_loss.
ExpertPlan make_plan(const PlanProblem& problem);

// Loss of all experts in `format`, as the profile has it.
double uniform_loss_of(const PlanProblem& problem, const WeightFormat& format);

}  // namespace skipper
