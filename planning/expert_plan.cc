#include "planning/expert_plan.h"

#include <algorithm>
#include <numeric>
#include <set>
#include <tuple>

#include "base/error.h"

namespace skipper {
namespace {

constexpr size_t kHashDigits = 16;

std::string describe(const ExpertId& id) {
  return "expert " + std::to_string(id.expert) + " of MoE layer " + std::to_string(id.layer);
}

// The checks of one plan; `where` begins each message.
class Checker {
 public:
  Checker(const ExpertPlan& plan, const std::string& where) : plan_(plan), where_(where) {}

  // The copies are sorted.
  void check() const {
    check_ranks();
    for (const ExpertCopy& copy : plan_.copies) check_copy(copy);
    check_slots();
    check_experts();
    check_budgets();
  }

 private:
  [[noreturn]] void fail(const std::string& problem) const { throw InvalidFile(where_ + ": " + problem); }

  void check_ranks() const {
    if (plan_.ranks.size() == static_cast<size_t>(plan_.subject.world_size)) return;
    fail("budgets of " + std::to_string(plan_.ranks.size()) + " ranks, but world_size is " +
         std::to_string(plan_.subject.world_size) + "; make the plan again");
  }

  void check_copy(const ExpertCopy& copy) const {
    const PlanSubject& subject = plan_.subject;
    if (copy.id.layer < 0 || copy.id.layer >= subject.num_moe_layers || copy.id.expert < 0 ||
        copy.id.expert >= subject.num_experts) {
      fail(describe(copy.id) + " does not exist; the model has " + std::to_string(subject.num_experts) + " experts in each of " +
           std::to_string(subject.num_moe_layers) + " MoE layers");
    }
    if (copy.rank < 0 || copy.rank >= subject.world_size) {
      fail(describe(copy.id) + " is on rank " + std::to_string(copy.rank) + ", but the plan has ranks 0 to " +
           std::to_string(subject.world_size - 1));
    }
    check_place(copy);
    const bool is_hash = copy.hash.size() == kHashDigits &&
                         copy.hash.find_first_not_of("0123456789abcdef") == std::string::npos;
    if (copy.hash.empty() || is_hash) return;
    fail(describe(copy.id) + " has the hash '" + copy.hash + "'; expected 16 hexadecimal digits, or nothing");
  }

  void check_place(const ExpertCopy& copy) const {
    const auto& tiers = plan_.ranks[static_cast<size_t>(copy.rank)].tiers;
    if (!tiers.contains(copy.tier)) {
      fail(describe(copy.id) + " rests in tier " + std::string(name_of(copy.tier)) + " of rank " + std::to_string(copy.rank) +
           ", which has no budget there");
    }
    if (copy.runs_on == ComputePlace::kDevice && !tiers.contains(MemoryTier::kDevice)) {
      fail(describe(copy.id) + " runs on a device of rank " + std::to_string(copy.rank) + ", which has none");
    }
    if (copy.tier == MemoryTier::kDevice && copy.runs_on == ComputePlace::kHost) {
      fail(describe(copy.id) + " rests on the device of rank " + std::to_string(copy.rank) + " but runs on its host");
    }
  }

  void check_slots() const {
    int32_t expected = 0;
    const ExpertCopy* previous = nullptr;
    for (const ExpertCopy& copy : plan_.copies) {
      const bool is_next = previous != nullptr && previous->id.layer == copy.id.layer && previous->rank == copy.rank;
      expected = is_next ? expected + 1 : 0;
      if (copy.slot != expected) {
        fail(describe(copy.id) + " is in slot " + std::to_string(copy.slot) + " of rank " + std::to_string(copy.rank) +
             "; expected slot " + std::to_string(expected) + ", for slots have neither gaps nor doubles");
      }
      previous = &copy;
    }
  }

  void check_experts() const {
    std::set<std::tuple<int32_t, int32_t, int32_t>> places;
    std::set<ExpertId> served;
    for (const ExpertCopy& copy : plan_.copies) {
      if (!places.emplace(copy.id.layer, copy.id.expert, copy.rank).second) {
        fail(describe(copy.id) + " has two copies on rank " + std::to_string(copy.rank));
      }
      if (copy.role == CopyRole::kServing) served.insert(copy.id);
    }
    for (int32_t layer = 0; layer < plan_.subject.num_moe_layers; ++layer) {
      for (int32_t expert = 0; expert < plan_.subject.num_experts; ++expert) {
        if (!served.contains({layer, expert})) fail(describe({layer, expert}) + " has no copy that serves");
      }
    }
  }

  void check_budgets() const {
    for (size_t rank = 0; rank < plan_.ranks.size(); ++rank) {
      for (const auto& [tier, budget] : plan_.ranks[rank].tiers) {
        if (budget.use.total_bytes() <= budget.budget_bytes) continue;
        fail("rank " + std::to_string(rank) + " uses " + std::to_string(budget.use.total_bytes()) + " bytes of " +
             std::string(name_of(tier)) + " memory, over its budget of " + std::to_string(budget.budget_bytes));
      }
    }
  }

  const ExpertPlan& plan_;
  const std::string& where_;
};

}  // namespace

std::string_view name_of(MemoryTier tier) {
  switch (tier) {
    case MemoryTier::kDevice:
      return "device";
    case MemoryTier::kHost:
      return "host";
    case MemoryTier::kDisk:
      return "disk";
  }
  return "?";
}

std::string_view name_of(ComputePlace place) { return place == ComputePlace::kDevice ? "device" : "host"; }

size_t MemoryUse::expert_bytes() const {
  size_t sum = 0;
  for (const auto& [format, bytes] : experts) sum += bytes;
  return sum;
}

std::vector<std::vector<ExpertCopy>> ExpertPlan::copies_of(int rank) const {
  std::vector<std::vector<ExpertCopy>> layers(static_cast<size_t>(subject.num_moe_layers));
  for (const ExpertCopy& copy : copies) {
    if (copy.rank == rank) layers[static_cast<size_t>(copy.id.layer)].push_back(copy);
  }
  return layers;
}

void check_expert_plan(ExpertPlan& plan, const std::string& where) {
  std::ranges::sort(plan.copies, {}, [](const ExpertCopy& copy) {
    return std::tuple(copy.id.layer, copy.rank, copy.slot, copy.id.expert);
  });
  Checker(plan, where).check();
}

}  // namespace skipper
