#include "launcher/policies.h"

#include <algorithm>
#include <sstream>
#include <utility>

#include "base/error.h"

namespace skipper {
namespace {

PolicyFile parse_policy(const std::string& entry) {
  const size_t equals = entry.find('=');
  if (equals == std::string::npos || equals == 0 || equals + 1 == entry.size()) {
    throw UsageError("flag --policies: '" + entry + "' is no policy; expected NAME=PLAN.json, with commas between several");
  }
  return {entry.substr(0, equals), entry.substr(equals + 1)};
}

std::string place_text(const ExpertHome& home) {
  return "slot " + std::to_string(home.slot) + " of rank " + std::to_string(home.rank);
}

// A switch sends no expert to another rank.
void require_same_homes(const PolicyFile& first, const ExpertPlacement& there, const PolicyFile& other,
                        const ExpertPlacement& here) {
  for (int layer = 0; layer < there.num_moe_layers(); ++layer) {
    for (int expert = 0; expert < there.num_experts(); ++expert) {
      const ExpertHome wanted = there.owner({layer, expert}), found = here.owner({layer, expert});
      if (wanted.rank == found.rank && wanted.slot == found.slot) continue;
      throw InvalidFile(other.plan.string() + ": expert " + std::to_string(expert) + " of MoE layer " + std::to_string(layer) +
                        " is in " + place_text(found) + ", but in " + place_text(wanted) + " in policy " + first.name +
                        "; make the plan with --owners_of " + first.plan.string());
    }
  }
}

void require_switchable(const ServedPlan& plan, const PolicyFile& file) {
  if (plan.assignment.placement.has_shadows()) {
    throw InvalidFile(file.plan.string() + ": has shadow copies, which are not switched; make the plan without --shadow_format");
  }
  for (const std::vector<AssignedExpert>& layer : plan.assignment.slots) {
    const bool is_in_memory = std::ranges::all_of(layer, [](const AssignedExpert& e) { return e.rest == ExpertTier::kHost; });
    if (is_in_memory) continue;
    throw InvalidFile(file.plan.string() + ": has experts on disk, which are not switched; plan without --disk");
  }
}

}  // namespace

void check_policy_flags(const CommandLine& line) {
  if (line.policies.empty() && !line.policy.empty()) throw UsageError("flag --policy needs --policies, of which it is one");
  if (line.policies.empty()) return;
  const std::pair<const char*, bool> others[] = {{"plan", !line.plan.empty()},
                                                 {"memory", !line.memory.empty()},
                                                 {"experts", !line.experts.empty()},
                                                 {"disk", !line.disk.empty()}};
  for (const auto& [flag, given] : others) {
    if (given) throw UsageError(std::string("flags --policies and --") + flag + " exclude each other; give one");
  }
}

std::vector<PolicyFile> parse_policies(const std::string& text) {
  std::vector<PolicyFile> files;
  std::istringstream entries(text);
  for (std::string entry; std::getline(entries, entry, ',');) {
    PolicyFile file = parse_policy(entry);
    if (std::ranges::find(files, file.name, &PolicyFile::name) != files.end()) {
      throw UsageError("flag --policies: there are two policies '" + file.name + "'; give each its own name");
    }
    files.push_back(std::move(file));
  }
  return files;
}

size_t place_of_policy(const std::vector<PolicyFile>& files, const std::string& name) {
  if (name.empty()) return 0;
  const auto found = std::ranges::find(files, name, &PolicyFile::name);
  if (found == files.end()) throw UsageError("flag --policy: '" + name + "' is none of --policies");
  return static_cast<size_t>(found - files.begin());
}

ServedPolicies load_policies(const std::vector<PolicyFile>& files, const PlanReader& reader, ServerConfig& config) {
  ServedPolicies served;
  for (const PolicyFile& file : files) {
    ServedPlan plan = load_served_plan(file.plan, reader, config);
    require_switchable(plan, file);
    if (!served.policies.empty()) {
      require_same_homes(files.front(), served.policies.front().assignment.placement, file, plan.assignment.placement);
    }
    served.traits.push_back({.name = file.name, .expert_bits = plan.expert_bits});
    served.policies.push_back({file.name, std::move(plan.assignment), plan.expert_room});
    served.text += file.name + "\n" + plan.text + "\n";
  }
  return served;
}

}  // namespace skipper
