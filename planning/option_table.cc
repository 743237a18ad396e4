#include "planning/option_table.h"

#include <algorithm>
#include <limits>

namespace skipper {
namespace {

// Up to so many experts the best choice is proven.
constexpr size_t kMaxExactExperts = 320;

// The budget of the loss comes before those of the tiers.
constexpr size_t kLossBudget = 0;
size_t budget_of(MemoryTier tier) { return static_cast<size_t>(tier) + 1; }

}  // namespace

OptionTable::OptionTable(const PlanProblem& problem) : problem_(problem), options_(expert_options(problem)) {
  const PrecisionProfile& profile = problem.profile;
  for (const ExpertOption& option : options_) {
    // What a quantised checkpoint has lost is lost.
    losses_.push_back(expert_losses(profile, problem.model.quantization ? WeightFormat{} : option.format));
  }
  for (int32_t layer = 0; layer < profile.num_moe_layers(); ++layer) {
    for (int32_t expert = 0; expert < profile.num_experts(); ++expert) use_.push_back(profile.decode_use_of({layer, expert}));
  }
}

double OptionTable::loss(int32_t expert, int32_t option) const {
  return losses_[static_cast<size_t>(option)][static_cast<size_t>(expert)];
}

double OptionTable::seconds(int32_t expert, int32_t index) const { return decode_use(expert) * option(index).seconds_per_use; }

bool OptionTable::is_allowed(int32_t expert, int32_t index) const {
  if (!problem_.model.quantization) return true;
  const auto moe_layer = expert / problem_.profile.num_experts();
  int64_t layer = 0;
  for (int seen = -1; layer < problem_.model.num_layers(); ++layer) {
    if (problem_.model.is_moe_layer(layer) && ++seen == moe_layer) break;
  }
  return option(index).format == problem_.model.quantization->of_expert(layer, expert % problem_.profile.num_experts());
}

std::optional<OptionChoice> OptionTable::choose(std::span<const int32_t> experts, const TierRoom& room, PlanCost cost,
                                                double max_loss) const {
  const bool is_one_tier = std::ranges::all_of(options_, [&](const ExpertOption& o) { return o.tier == options_[0].tier; });
  if (is_one_tier && cost == PlanCost::kLoss && max_loss == std::numeric_limits<double>::infinity()) {
    return choose_by_size(experts, room[static_cast<size_t>(options_[0].tier)]);
  }
  BudgetValues budgets{};
  budgets[kLossBudget] = max_loss;
  for (size_t tier = 0; tier < kNumMemoryTiers; ++tier) budgets[tier + 1] = static_cast<double>(room[tier]);
  return choose_by_budgets(experts, budgets, cost);
}

std::optional<OptionChoice> OptionTable::choose_by_size(std::span<const int32_t> experts, size_t room) const {
  std::vector<KnapsackItem> items;
  std::vector<std::vector<int32_t>> allowed;
  for (const int32_t expert : experts) {
    KnapsackItem& item = items.emplace_back();
    std::vector<int32_t>& indices = allowed.emplace_back();
    for (int32_t i = 0; i < static_cast<int32_t>(options_.size()); ++i) {
      if (!is_allowed(expert, i)) continue;
      item.push_back({static_cast<int64_t>(option(i).num_bytes), loss(expert, i)});
      indices.push_back(i);
    }
  }
  const auto budget = static_cast<int64_t>(room);
  const auto solution = items.size() <= kMaxExactExperts ? solve_knapsack_exactly(items, budget) : solve_knapsack(items, budget);
  if (!solution) return std::nullopt;
  OptionChoice choice{.options = {},
                      .cost = solution->selection.cost,
                      .bound = solution->bound,
                      .is_exact = solution->is_proven};
  for (size_t i = 0; i < items.size(); ++i) {
    choice.options.push_back(allowed[i][static_cast<size_t>(solution->selection.choices[i])]);
  }
  return choice;
}

std::optional<OptionChoice> OptionTable::choose_by_budgets(std::span<const int32_t> experts, const BudgetValues& budgets,
                                                           PlanCost cost) const {
  BudgetValues finite = budgets;
  const bool is_loss_bounded = budgets[kLossBudget] < std::numeric_limits<double>::infinity();
  if (!is_loss_bounded) finite[kLossBudget] = 0.0;
  std::vector<BudgetedItem> items;
  std::vector<std::vector<int32_t>> allowed;
  for (const int32_t expert : experts) {
    BudgetedItem& item = items.emplace_back();
    std::vector<int32_t>& indices = allowed.emplace_back();
    for (int32_t i = 0; i < static_cast<int32_t>(options_.size()); ++i) {
      if (!is_allowed(expert, i)) continue;
      BudgetedChoice choice{.cost = cost == PlanCost::kLoss ? loss(expert, i) : seconds(expert, i)};
      if (is_loss_bounded) choice.uses[kLossBudget] = loss(expert, i);
      choice.uses[budget_of(option(i).tier)] = static_cast<double>(option(i).num_bytes);
      item.push_back(choice);
      indices.push_back(i);
    }
  }
  const auto solution = solve_with_budgets(items, finite);
  if (!solution) return std::nullopt;
  OptionChoice choice{.options = {}, .cost = solution->cost, .bound = solution->bound};
  for (size_t i = 0; i < items.size(); ++i) {
    choice.options.push_back(allowed[i][static_cast<size_t>(solution->choices[i])]);
  }
  return choice;
}

}  // namespace skipper
