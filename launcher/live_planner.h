// Plans for other budgets while a server runs: every expert stays where it is, formats change.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "cluster/switch_state.h"
#include "configs/server_config.h"
#include "launcher/budget_planner.h"
#include "launcher/served_plan.h"

namespace skipper {

// Of ranks on CPUs, without disks.
class LivePlanner {
 public:
  // The experts stay where `served` has them; profile, machine and target are those of the options. What the reader names
  // outlives the planner. Throws InvalidFile.
  LivePlanner(std::filesystem::path model, const PlanReader& reader, const ServerConfig& config, BudgetOptions options,
              const ServedPlan& served);

  // `memory` as --memory has it; the plan's name is "memory:" and that. Throws InvalidRequest with param "memory" for what are no
  // sizes, too many or too few of them, and budgets that cannot be met (the planner's advice). Thread-safe.
  PostedPlan plan_for_memory(const std::string& memory) const;

 private:
  void check_sizes(const std::string& memory) const;

  std::filesystem::path model_;
  const ModelConfig& model_config_;
  int num_ranks_;
  ServerConfig config_;
  BudgetOptions options_;
  std::vector<int32_t> owners_;
};

}  // namespace skipper
