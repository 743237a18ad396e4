#include "planning/plan_report.h"

#include <map>

#include "base/printf_text.h"
#include "planning/memory_size.h"
#include "planning/plan_solver.h"

namespace skipper {
namespace {

std::string row_of(const TierBudget& budget) {
  const MemoryUse& use = budget.use;
  std::string row;
  for (const size_t bytes : {use.runtime, use.dense_weights, use.kv_cache, use.buffers + use.reference_experts,
                             use.expert_bytes(), use.total_bytes(), budget.budget_bytes}) {
    row += printf_text(" %11s", memory_text(bytes).c_str());
  }
  return row;
}

std::string memory_table(const ExpertPlan& plan) {
  std::string table = "rank memory     runtime       dense    KV cache     buffers     experts        used      budget\n";
  for (size_t rank = 0; rank < plan.ranks.size(); ++rank) {
    for (const auto& [tier, budget] : plan.ranks[rank].tiers) {
      table += printf_text("%4zu %-6s", rank, std::string(name_of(tier)).c_str()) + row_of(budget) + "\n";
    }
  }
  return table;
}

// Copies and bytes of each format in each tier, over all ranks.
std::string format_table(const ExpertPlan& plan) {
  std::map<std::pair<MemoryTier, std::string>, std::pair<int64_t, size_t>> sums;
  for (const ExpertCopy& copy : plan.copies) ++sums[{copy.tier, name_of(copy.format)}].first;
  for (const RankPlanMemory& rank : plan.ranks) {
    for (const auto& [tier, budget] : rank.tiers) {
      for (const auto& [format, bytes] : budget.use.experts) sums[{tier, format}].second += bytes;
    }
  }
  std::string table = "experts by format:\n";
  for (const auto& [key, sum] : sums) {
    table += printf_text("  %-6s %-10s %7lld copies %11s\n", std::string(name_of(key.first)).c_str(), key.second.c_str(),
                     static_cast<long long>(sum.first), memory_text(sum.second).c_str());
  }
  return table;
}

std::string loss_unit(const PlanProblem& problem) {
  return problem.profile.basis == ProfileBasis::kMeasured ? "nats of KL a token" : "relative units, from the model's shape alone";
}

// What all experts in one format would lose: the plan's loss means little beside nothing.
std::string uniform_table(const PlanProblem& problem) {
  std::string table = "  beside it, all experts in one format:";
  for (const WeightFormat& format : problem.profile.formats) {
    table += printf_text(" %s %.4g", name_of(format).c_str(), uniform_loss_of(problem, format));
  }
  return table + "\n";
}

std::string certificate_line(const ExpertPlan& plan) {
  const PlanCertificate& certificate = plan.certificate;
  if (certificate.method == "exact") return "certificate: proven, no plan within this memory is better\n";
  return printf_text("certificate: within %.3f %% of what no plan can beat (loss bound %.4g, time bound %.4g s)\n",
                 100.0 * certificate.gap, certificate.loss_bound, certificate.seconds_bound);
}

}  // namespace

std::string plan_report(const ExpertPlan& plan, const PlanProblem& problem) {
  const PlanPrediction& predicted = plan.predicted;
  std::string report = memory_table(plan) + format_table(plan);
  report += printf_text("mean %.3f bits per expert weight\n", predicted.expert_bits);
  const std::string rates = problem.rates.source.empty() ? "assumed rates of memory" : "rates of " + problem.rates.source;
  report += printf_text("one stream: %s read a token, %.1f tokens/s at %s\n",
                    memory_text(static_cast<size_t>(predicted.bytes_per_token)).c_str(), 1.0 / predicted.seconds_per_token,
                    rates.c_str());
  report += printf_text("predicted loss: %.4g %s\n", predicted.loss, loss_unit(problem).c_str());
  if (!problem.model.quantization) report += uniform_table(problem);
  return report + certificate_line(plan) + "fits\n";
}

std::string shortage_line(const MemoryShortage& shortage, const ShortageAdvice& advice) {
  std::string line = "short by " + memory_text(shortage.missing_bytes) + " of " + std::string(name_of(shortage.tier)) +
                     " memory on rank " + std::to_string(shortage.rank) + ": do one of: ";
  line += "give every rank " + memory_text(advice.enough_memory);
  if (advice.enough_ranks > 0) line += "; use " + std::to_string(advice.enough_ranks) + " ranks";
  if (advice.enough_kv_blocks > 0) {
    line += "; lower engine.kv_blocks_per_rank to " + std::to_string(advice.enough_kv_blocks);
  }
  if (!advice.has_disk) line += "; add --disk DIR, where experts that do not fit are read from a disk";
  return line;
}

}  // namespace skipper
