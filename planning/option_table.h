// The options of every expert with their loss, time and bytes, in the forms that the two knapsacks take.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "planning/format_knapsack.h"
#include "planning/plan_problem.h"
#include "planning/tier_knapsack.h"

namespace skipper {

// What is minimised.
enum class PlanCost : uint8_t { kLoss, kTime };

// Room for experts: [tier].
using TierRoom = std::array<size_t, kNumMemoryTiers>;

// An option of each of some experts, by index into OptionTable::options.
struct OptionChoice {
  std::vector<int32_t> options;
  double cost = 0.0;
  double bound = 0.0;
  bool is_exact = false;
};

// Experts are numbered layer · num_experts + expert.
class OptionTable {
 public:
  explicit OptionTable(const PlanProblem& problem);

  size_t num_experts() const { return use_.size(); }
  const std::vector<ExpertOption>& options() const { return options_; }
  const ExpertOption& option(int32_t index) const { return options_[static_cast<size_t>(index)]; }
  double loss(int32_t expert, int32_t option) const;
  // Of one token that is generated, on average.
  double seconds(int32_t expert, int32_t option) const;
  double decode_use(int32_t expert) const { return use_[static_cast<size_t>(expert)]; }

  // The best option for each of `experts` within the room and the loss; empty where there is none.
  std::optional<OptionChoice> choose(std::span<const int32_t> experts, const TierRoom& room, PlanCost cost,
                                     double max_loss) const;

 private:
  bool is_allowed(int32_t expert, int32_t option) const;
  std::optional<OptionChoice> choose_by_size(std::span<const int32_t> experts, size_t room) const;
  std::optional<OptionChoice> choose_by_budgets(std::span<const int32_t> experts, const BudgetValues& budgets,
                                                PlanCost cost) const;

  const PlanProblem& problem_;
  std::vector<ExpertOption> options_;
  std::vector<std::vector<double>> losses_;  // [option][expert]
  std::vector<double> use_;                  // [expert] while tokens are generated
};

}  // namespace skipper
