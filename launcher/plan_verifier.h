// Measures plans with the weights at hand: what a plan loses, and whether one format would lose less in the same memory.
#pragma once

#include <memory>

#include "evaluation/format_scorer.h"
#include "launcher/flags.h"
#include "launcher/rank_process.h"
#include "planning/plan_problem.h"

namespace skipper {

// Loads the model of line.model on this rank, and the held-out samples of line.verify.
class PlanVerifier {
 public:
  // Throws Error under mpirun, and for a model whose formats cannot change.
  explicit PlanVerifier(const CommandLine& line);

  // Of the plan and of plans with one rounded format each, for the same budgets, the one that loses least; prints them all.
  ExpertPlan choose(const PlanProblem& problem, ExpertPlan plan);

 private:
  double measure(const ExpertPlan& plan);

  RankProcess process_;
  ScoredSamples samples_;
  std::unique_ptr<FormatScorer> scorer_;
};

// The profile as if `format` were the only one it has.
PrecisionProfile restricted_to(const PrecisionProfile& profile, const WeightFormat& format);

}  // namespace skipper
