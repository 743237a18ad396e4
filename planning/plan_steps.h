// From one plan to another in steps, so that the experts that serve and the new copies of a step fit in memory together.
#pragma once

#include <cstddef>
#include <vector>

#include "model/model_config.h"
#include "planning/expert_plan.h"

namespace skipper {

// Experts of ranks on CPUs, all in memory, each on the same rank and slot in both plans: formats differ.
struct PlanChange {
  const ModelConfig& model;
  const ExpertPlan& serving;
  const ExpertPlan& wanted;
};

// The plan of the next step: `serving` with as many whole layers of `wanted` as fit beside all that serves, those that give back
// most first. `wanted` itself when that is all that is left. room[rank] is memory for experts; with a layer more of it than the
// larger of both plans takes, a step is always found. Its budgets are the rooms, its loss the larger one of both plans. Throws
// ResourceExhausted where not even one layer fits.
ExpertPlan next_plan(const PlanChange& change, const std::vector<size_t>& room);

// All copies have the same formats: there is nothing to change.
bool same_formats(const ExpertPlan& one, const ExpertPlan& other);

// Of any rank's part of any layer.
size_t largest_layer_bytes(const ModelConfig& model, const ExpertPlan& plan);

}  // namespace skipper
