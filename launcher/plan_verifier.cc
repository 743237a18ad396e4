#include "launcher/plan_verifier.h"

#include <cstdio>
#include <span>
#include <utility>

#include "base/error.h"
#include "evaluation/format_scorer.h"
#include "evaluation/loss_estimate.h"
#include "launcher/command_options.h"
#include "launcher/engine_phase.h"
#include "launcher/progress_line.h"
#include "planning/plan_candidates.h"

namespace skipper {
namespace {

// Of which a fifth is held out.
constexpr SampleLimits kVerifiedSamples{.samples = 840, .text_windows = 200, .window_tokens = kPlannedWindow};

void check_subject(const RankProcess& process) {
  if (process.world_size() > 1) {
    throw Error("skipper plan --verify measures on one rank, but " + std::to_string(process.world_size()) +
                " were started; run it without mpirun");
  }
  if (process.model_config().quantization) {
    throw Error("skipper plan --verify rounds experts anew, but the checkpoint is quantised already; give its original");
  }
}

// Formats change on the loaded model: no plan, budget or disk of the command line is for loading it.
RankOptions unplanned(const CommandLine& line) {
  RankOptions options;
  options.model = line.model;
  return options;
}

std::vector<uint8_t> plain_ones(std::span<const PlanCandidate> candidates) {
  std::vector<uint8_t> plain;
  for (const PlanCandidate& candidate : candidates) plain.push_back(candidate.is_plain ? 1 : 0);
  return plain;
}

void print_loss(const PlanCandidate& candidate, const LossEstimate& loss, const LossEstimate& more) {
  std::printf("%-28s %6.3f bits  predicted %.6f  measured %.6f ± %.6f nats per token, against the best plain one %+.6f ± %.6f\n",
              candidate.name.c_str(), candidate.plan.predicted.expert_bits, candidate.plan.predicted.loss, loss.mean,
              loss.standard_error, more.mean, more.standard_error);
}

void print_all(std::span<const PlanCandidate> candidates, std::span<const std::vector<ScoredLoss>> losses, size_t chosen) {
  const size_t plain = best_plain(losses, plain_ones(candidates));
  for (size_t i = 0; i < candidates.size(); ++i) {
    print_loss(candidates[i], estimate_loss(losses[i]), estimate_difference(losses[i], losses[plain]));
  }
  std::printf("taken: %s\n", candidates[chosen].name.c_str());
}

}  // namespace

PlanVerifier::PlanVerifier(const CommandLine& line)
    : process_([&] { return scoring_config_from(line); }, unplanned(line)) {
  check_subject(process_);
  samples_ = load_scored_samples(line.verify, kVerifiedSamples, process_.model_config().eos_token_ids,
                                 process_.processor().tokenizer());
  process_.load();
}

ExpertPlan PlanVerifier::choose(const PlanProblem& problem, ExpertPlan plan) {
  if (const std::string point = problem.profile.operating_point.value_or(""); !point.empty()) {
    throw Error("skipper plan --verify measures without skipping, but the profile was measured at level " + point +
                "; leave --verify out, or take a profile without --operating_point");
  }
  std::vector<PlanCandidate> candidates = plan_candidates(problem, std::move(plan));
  std::vector<std::vector<ScoredLoss>> losses;
  Engine& engine = process_.start_engine(nullptr);
  run_phase(process_, engine, [&] {
    FormatScorer scorer({engine, process_.queue(), process_.processor(), samples_, process_.model(), process_.workers()},
                        {.split = DataSplit::kHeldOut});
    scorer.keep_reference(ProgressLine("unrounded, samples"));
    ProgressLine progress("measuring plans");
    for (const PlanCandidate& candidate : candidates) {
      losses.push_back(scorer.score(serving_formats(candidate.plan, process_.model_config())).samples);
      progress(losses.size(), candidates.size());
    }
  });
  const size_t chosen = surely_best(losses, plain_ones(candidates));
  print_all(candidates, losses, chosen);
  ExpertPlan best = std::move(candidates[chosen].plan);
  best.predicted.loss = estimate_loss(losses[chosen]).mean;
  return best;
}

}  // namespace skipper
