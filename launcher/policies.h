// The named plans that a server can be switched between while it serves.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "cluster/switch_state.h"
#include "configs/server_config.h"
#include "engine/expert_stager.h"
#include "launcher/flags.h"
#include "launcher/guard_setup.h"
#include "launcher/served_plan.h"

namespace skipper {

// Throws UsageError for --policy without --policies, and for flags that say otherwise what serves.
void check_policy_flags(const CommandLine& line);

// Whether `flag`, which says how to plan, may be of use without --memory: for plans that are posted while the server runs.
bool may_plan_live(const CommandLine& line, const std::string& flag);

// "quality=a.json,throughput=b.json". Throws UsageError for anything else, and for a name that comes twice.
std::vector<PolicyFile> parse_policies(const std::string& text);
// The place of `name`, or of the first when it is empty. Throws UsageError when there is none of that name, which `key` said.
size_t place_of_policy(const std::vector<PolicyFile>& files, const std::string& name, const std::string& key);

// For each tier that names its lowest policy, the place of that. Throws Error naming the key and the choices for a policy that
// does not exist.
std::map<std::string, uint16_t> places_of_tiers(const ServerConfig& config, const std::vector<PolicyTraits>& policies);

// What all plans say, as one rank reads them.
struct ServedPolicies {
  std::vector<ExpertPolicy> policies;
  std::vector<PolicyTraits> traits;  // of each
  std::vector<ReferenceRoom> reference_rooms;  // that each leaves this rank
  std::string text;  // of all plans; the same on every rank
};

// Throws as load_served_plan() does, and InvalidFile for plans that cannot be switched between: an expert that is not on the same
// rank and slot as in the first plan, experts on disk, shadow copies.
ServedPolicies load_policies(const std::vector<PolicyFile>& files, const PlanReader& reader, ServerConfig& config);

// The plan that a server was started with, as its only policy; none when it cannot be switched.
ServedPolicies only_policy(const std::string& name, const ServedPlan& plan);

// A plan that came while the server runs, whose experts are where `serving` has them. Throws as load_policies() does.
ExpertPolicy read_posted_policy(const std::string& text, const ExpertPlacement& serving, const PlanReader& reader,
                                ServerConfig config);

}  // namespace skipper
