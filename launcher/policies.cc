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

bool is_in_memory(const ServedPlan& plan) {
  return std::ranges::all_of(plan.assignment.slots, [](const std::vector<AssignedExpert>& layer) {
    return std::ranges::all_of(layer, [](const AssignedExpert& expert) { return expert.rest == ExpertTier::kHost; });
  });
}

bool is_switchable(const ServedPlan& plan) { return !plan.assignment.placement.has_shadows() && is_in_memory(plan); }

void require_switchable(const ServedPlan& plan, const PolicyFile& file) {
  if (is_switchable(plan)) return;
  if (plan.assignment.placement.has_shadows()) {
    throw InvalidFile(file.plan.string() + ": has shadow copies, which are not switched; make the plan without --shadow_format");
  }
  throw InvalidFile(file.plan.string() + ": has experts on disk, which are not switched; plan without --disk");
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

bool may_plan_live(const CommandLine& line, const std::string& flag) {
  const bool has_plan = !line.plan.empty() || !line.policies.empty() || !line.config.empty();
  return line.command == "serve" && line.admin_port >= 0 && has_plan && flag != "host_memory";
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

size_t place_of_policy(const std::vector<PolicyFile>& files, const std::string& name, const std::string& key) {
  if (name.empty()) return 0;
  const auto found = std::ranges::find(files, name, &PolicyFile::name);
  if (found != files.end()) return static_cast<size_t>(found - files.begin());
  std::string names;
  for (const PolicyFile& file : files) names += (names.empty() ? "" : ", ") + file.name;
  throw UsageError(key + ": '" + name + "' is none of the policies " + names);
}

std::map<std::string, uint16_t> places_of_tiers(const ServerConfig& config, const std::vector<PolicyTraits>& policies) {
  std::map<std::string, uint16_t> places;
  std::string names;
  for (const PolicyTraits& policy : policies) names += (names.empty() ? "" : ", ") + policy.name;
  for (const auto& [tier, policy] : config.tier_policies) {
    const auto found = std::ranges::find(policies, policy, &PolicyTraits::name);
    if (found == policies.end()) {
      throw Error("service_tiers." + tier + ".policy: there is no policy '" + policy + "'; " +
                  (names.empty() ? "this server has none, give it --policies" : "the policies are " + names));
    }
    places[tier] = static_cast<uint16_t>(found - policies.begin());
  }
  return places;
}

ServedPolicies load_policies(const std::vector<PolicyFile>& files, const PlanReader& reader, ServerConfig& config) {
  ServedPolicies served;
  for (const PolicyFile& file : files) {
    ServedPlan plan = load_served_plan(file.plan, reader, config);
    require_switchable(plan, file);
    if (!served.policies.empty()) {
      require_same_homes(files.front(), served.policies.front().assignment.placement, file, plan.assignment.placement);
    }
    served.traits.push_back(plan.traits);
    served.traits.back().name = file.name;
    served.reference_rooms.push_back({"policy " + file.name, plan.reference_room});
    served.policies.push_back({file.name, std::move(plan.assignment), plan.expert_room});
    served.text += file.name + "\n" + plan.text + "\n";
  }
  return served;
}

ServedPolicies only_policy(const std::string& name, const ServedPlan& plan) {
  if (!is_switchable(plan)) return {};
  ServedPolicies served{.policies = {{name, plan.assignment, plan.expert_room}},
                        .traits = {plan.traits},
                        .reference_rooms = {{"the plan", plan.reference_room}},
                        .text = plan.text};
  served.traits.front().name = name;
  return served;
}

ExpertPolicy read_posted_policy(const std::string& text, const ExpertPlacement& serving, const PlanReader& reader,
                                ServerConfig config) {
  ServedPlan plan = read_served_plan(text, reader, config);
  const PolicyFile posted{.name = "for this memory", .plan = "the plan for this memory"};
  require_switchable(plan, posted);
  require_same_homes({.name = "that serves", .plan = "the plan that serves"}, serving, posted, plan.assignment.placement);
  return {posted.name, std::move(plan.assignment), plan.expert_room};
}

}  // namespace skipper
