#include "launcher/live_planner.h"

#include <utility>

#include "base/error.h"
#include "planning/expert_plan.h"
#include "planning/memory_size.h"
#include "planning/plan_request.h"

namespace skipper {

LivePlanner::LivePlanner(std::filesystem::path model, const PlanReader& reader, const ServerConfig& config, BudgetOptions options,
                         const ServedPlan& served)
    : model_(std::move(model)),
      model_config_(reader.model),
      num_ranks_(reader.world_size),
      config_(config),
      options_(std::move(options)),
      owners_(owners_of(parse_expert_plan(served.text, "the plan that serves", subject_of(reader)))) {
  options_.host_memory.clear();
  options_.disk.clear();
  options_.owners_of.clear();
}

PostedPlan LivePlanner::plan_for_memory(const std::string& memory) const {
  check_sizes(memory);
  BudgetOptions options = options_;
  options.memory = memory;
  const BudgetPlanner planner({model_, model_config_, num_ranks_, ComputePlace::kHost}, config_, options);
  PlanRequest request = planner.request();
  request.owners = owners_;
  try {
    const ExpertPlan plan = plan_for(request);
    PostedPlan posted{.policy = traits_of(plan), .text = to_json(plan)};
    posted.policy.name = "memory:" + memory;
    return posted;
  } catch (const ResourceExhausted& shortage) {
    throw InvalidRequest(std::string("memory: ") + shortage.what(), "memory");
  }
}

void LivePlanner::check_sizes(const std::string& memory) const {
  const size_t num_sizes = parse_memory_sizes(memory, "memory").size();
  if (num_sizes == 1 || num_sizes == static_cast<size_t>(num_ranks_)) return;
  throw InvalidRequest("memory: " + std::to_string(num_sizes) + " sizes for " + std::to_string(num_ranks_) +
                           " ranks; give one for all, or one for each",
                       "memory");
}

}  // namespace skipper
