#include "launcher/plan_verifier.h"

#include <algorithm>
#include <cstdio>
#include <optional>

#include "base/error.h"
#include "launcher/command_options.h"
#include "launcher/engine_phase.h"
#include "launcher/progress_line.h"
#include "planning/plan_solver.h"

namespace skipper {
namespace {

constexpr SampleLimits kVerifiedSamples{.samples = 640, .text_windows = 32};  // of which a fifth is held out

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

ExpertFormats formats_of(const ExpertPlan& plan, const ModelConfig& model) {
  ExpertFormats formats = uniform_formats(model, {});
  for (const ExpertCopy& copy : plan.copies) {
    if (copy.role != CopyRole::kServing) continue;
    formats[static_cast<size_t>(copy.id.layer)][static_cast<size_t>(copy.id.expert)] = copy.format;
  }
  return formats;
}

// Nothing where the format does not fit, or loses more than was allowed.
std::optional<ExpertPlan> plan_of_one_format(const PlanProblem& problem, const WeightFormat& format) {
  const PrecisionProfile profile = restricted_to(problem.profile, format);
  const PlanProblem restricted{.model = problem.model, .profile = profile, .ranks = problem.ranks, .target = problem.target,
                               .max_loss = problem.max_loss, .dense_bytes = problem.dense_bytes,
                               .dense_format = problem.dense_format, .rates = problem.rates, .owners = problem.owners};
  if (find_shortage(restricted)) return std::nullopt;
  try {
    return make_plan(restricted);
  } catch (const ResourceExhausted&) {
    return std::nullopt;
  }
}

void print_loss(const std::string& name, const ExpertPlan& plan, double kl) {
  std::printf("%-24s %6.3f bits  predicted %.6f  measured %.6f nats per token\n", name.c_str(), plan.predicted.expert_bits,
              plan.predicted.loss, kl);
}

}  // namespace

PrecisionProfile restricted_to(const PrecisionProfile& profile, const WeightFormat& format) {
  const auto index = static_cast<size_t>(std::ranges::find(profile.formats, format) - profile.formats.begin());
  PrecisionProfile restricted = profile;
  restricted.formats = {format};
  if (!profile.uniform_loss.empty()) restricted.uniform_loss = {profile.uniform_loss[index]};
  for (LayerSensitivity& layer : restricted.layers) {
    for (ExpertSensitivity& expert : layer.experts) expert.error = {expert.error[index]};
  }
  return restricted;
}

PlanVerifier::PlanVerifier(const CommandLine& line)
    : process_([&] { return scoring_config_from(line); }, unplanned(line)) {
  check_subject(process_);
  samples_ = load_scored_samples(line.verify, kVerifiedSamples, process_.model_config().eos_token_ids,
                                 process_.processor().tokenizer());
  process_.load();
}

ExpertPlan PlanVerifier::choose(const PlanProblem& problem, ExpertPlan plan) {
  Engine& engine = process_.start_engine(nullptr);
  ExpertPlan best = std::move(plan);
  run_phase(process_, engine, [&] {
    scorer_ = std::make_unique<FormatScorer>(
        ScorerParts{engine, process_.queue(), process_.processor(), samples_, process_.model(), process_.workers()},
        ScorerSettings{.split = DataSplit::kHeldOut});
    scorer_->keep_reference(ProgressLine("unrounded, samples"));
    double least = measure(best);
    print_loss("the plan", best, least);
    for (const WeightFormat& format : problem.profile.formats) {
      std::optional<ExpertPlan> other = plan_of_one_format(problem, format);
      if (!other) continue;
      const double kl = measure(*other);
      print_loss(name_of(format) + " and bf16", *other, kl);
      if (kl >= least) continue;
      least = kl;
      best = std::move(*other);
      std::printf("%s loses less than what came before in the same memory: taken\n", name_of(format).c_str());
    }
    best.predicted.loss = least;
  });
  return best;
}

double PlanVerifier::measure(const ExpertPlan& plan) { return scorer_->measure(formats_of(plan, process_.model_config())); }

}  // namespace skipper
