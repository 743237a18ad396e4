#include "launcher/commands/plan_command.h"

#include <algorithm>
#include <cstdio>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "evaluation/frontier_file.h"
#include "launcher/budget_planner.h"
#include "launcher/plan_verifier.h"
#include "launcher/progress_line.h"
#include "planning/plan_assignment.h"
#include "planning/memory_size.h"
#include "planning/plan_report.h"
#include "planning/shadow_copies.h"
#include "tensor/device_runtime.h"

namespace skipper {
namespace {

ComputePlace place_of(const CommandLine& line) {
  if (line.device == "cuda") return ComputePlace::kDevice;
  return line.device != "cpu" && num_gpus() > 0 ? ComputePlace::kDevice : ComputePlace::kHost;
}

// As many as --ranks says, else as the plan has whose owners are kept.
int num_ranks(const CommandLine& line) {
  if (line.ranks > 0) return line.ranks;
  return line.owners_of.empty() ? 1 : load_expert_plan(line.owners_of).subject.world_size;
}

// One size for all ranks, or one for each.
std::vector<size_t> shadow_memory(const CommandLine& line, size_t num_ranks) {
  if (line.shadow_memory.empty()) return {};
  std::vector<size_t> sizes = parse_memory_sizes(line.shadow_memory, "flag --shadow_memory");
  if (sizes.size() == 1) sizes.resize(num_ranks, sizes[0]);
  if (sizes.size() == num_ranks) return sizes;
  throw UsageError("flag --shadow_memory: " + std::to_string(sizes.size()) + " sizes for " + std::to_string(num_ranks) +
                   " ranks; give one for all, or one for each");
}

std::optional<ShadowRequest> shadows_of(const CommandLine& line, const PlanRequest& request) {
  if (line.shadow_format.empty()) return std::nullopt;
  if (request.place == ComputePlace::kDevice) {
    throw UsageError("flag --shadow_format: GPUs use no shadow copies; leave it out, or use --device cpu");
  }
  if (request.model.quantization) {
    throw UsageError("flag --shadow_format: this checkpoint is quantised, each expert to one format; give the original");
  }
  const WeightFormat format = parse_weight_format(line.shadow_format, "flag --shadow_format");
  return ShadowRequest{format, shadow_memory(line, request.memory.size())};
}

// With kv_tokens_per_rank and target, which a plan made anew has not.
ExpertPlan verified(const CommandLine& line, const PlanProblem& problem, const ExpertPlan& plan) {
  ExpertPlan chosen = PlanVerifier(line).choose(problem, plan);
  chosen.origin.kv_tokens_per_rank = plan.origin.kv_tokens_per_rank;
  chosen.origin.target = plan.origin.target;
  return chosen;
}

}  // namespace

int run_plan(const CommandLine& line) {
  const ServerConfig config = load_server_config(line.config);
  const ModelConfig model = load_model_config(line.model);
  const std::filesystem::path directory = line.model;
  const BudgetPlanner planner({directory, model, num_ranks(line), place_of(line)}, config, budget_options_from(line));
  require_writable(line.out);
  const std::optional<ShadowRequest> shadows = shadows_of(line, planner.request());
  const PlanRequest request = shadows ? without_shadow_memory(planner.request(), *shadows) : planner.request();
  ExpertPlan plan = plan_for(request);
  const PlanProblem problem = problem_of(request);
  if (!line.verify.empty()) plan = verified(line, problem, plan);
  if (shadows) add_shadows(plan, request, *shadows);
  if (line.hashes) {
    ThreadPool workers(std::max(line.threads, 1));
    add_hashes(plan, line.model, model, workers, ProgressLine("hashing experts, layers"));
  }
  write_file_atomically(line.out, to_json(plan));
  std::fputs(plan_report(plan, problem).c_str(), stdout);
  return 0;
}

}  // namespace skipper
