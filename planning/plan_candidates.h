// Plans worth measuring beside the one that a profile's sum prefers: the same budgets with less trust in the profile.
//
// A sum chosen to be small is smaller than what it stands for (the winner's curse), the more so the further its formats are
// apart: an expert that calibration seldom met looks harmless in two bits. Candidates differ in the formats that they mix and
// in how far an expert's loss is drawn towards the mean of its layer.
#pragma once

#include <string>
#include <vector>

#include "planning/plan_problem.h"

namespace skipper {

struct PlanCandidate {
  std::string name;
  ExpertPlan plan;
  // One format, or its two neighbours layer by layer: owes nothing to differences between experts of a layer.
  bool is_plain = false;
};

// The plan first, then those that differ from all before. Each fits the problem's budgets and, where it has one, its bound on the
// predicted loss. At least one is plain unless no format fits so.
std::vector<PlanCandidate> plan_candidates(const PlanProblem& problem, ExpertPlan plan);

// The profile as if it had only formats[first] to formats[last].
PrecisionProfile restricted_to(const PrecisionProfile& profile, size_t first, size_t last);

}  // namespace skipper
