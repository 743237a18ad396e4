// Measures plans with the weights at hand: what a plan loses, and whether one that trusts the profile less loses less in the same
// memory.
#pragma once

#include "evaluation/scored_samples.h"
#include "launcher/flags.h"
#include "launcher/rank_process.h"
#include "planning/plan_problem.h"

namespace skipper {

// Loads the model of line.model on this rank, and the held-out samples of line.verify.
class PlanVerifier {
 public:
  // Throws Error under mpirun, and for a model whose formats cannot change.
  explicit PlanVerifier(const CommandLine& line);

  // Of plan_candidates(), each measured on the same samples: the plain one that loses least, unless others lose less by more than
  // twice the standard error of the difference; of those the one that loses least. Prints them all.
  ExpertPlan choose(const PlanProblem& problem, ExpertPlan plan);

 private:
  RankProcess process_;
  ScoredSamples samples_;
};

}  // namespace skipper
