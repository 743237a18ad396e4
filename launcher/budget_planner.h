// Plans for the memory that an operator names: what the command line and the settings say, as requests to the planner.
#pragma once

#include <filesystem>
#include <string>

#include "configs/server_config.h"
#include "launcher/flags.h"
#include "model/model_config.h"
#include "planning/plan_request.h"

namespace skipper {

// As on the command line; empty or negative: not given.
struct BudgetOptions {
  std::string memory;       // of each rank's processor: no plan is made without it
  std::string host_memory;
  std::string disk;
  std::string profile;
  std::string target;
  double max_loss = -1.0;
  std::string owners_of;    // a plan.json whose ranks keep their experts
  std::string machine;      // machine.json by which speed is predicted
};

BudgetOptions budget_options_from(const CommandLine& line);

// The model whose experts are planned, and the group that will hold them. Both outlive the planner.
struct PlannedGroup {
  const std::filesystem::path& directory;
  const ModelConfig& model;
  int num_ranks = 1;
  ComputePlace place = ComputePlace::kHost;
};

// What a rank of the group takes besides experts, under these settings.
RankSettings rank_settings(const PlannedGroup& group, const ServerConfig& config);

class BudgetPlanner {
 public:
  // Reads the profile, and what else the options name. Throws InvalidFile for such a file, UsageError naming an option that makes
  // no sense, and Error naming a setting that plans leave no choice.
  BudgetPlanner(const PlannedGroup& group, const ServerConfig& config, const BudgetOptions& options);

  BudgetPlanner(const BudgetPlanner&) = delete;
  BudgetPlanner& operator=(const BudgetPlanner&) = delete;

  // As the options say; change its memory or owners for another plan of the same group. Lives as long as the planner.
  const PlanRequest& request() const { return request_; }

 private:
  PrecisionProfile profile_;
  PlanRequest request_;
};

}  // namespace skipper
