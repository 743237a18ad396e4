// The named plans that a server can be switched between while it serves.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "cluster/switch_state.h"
#include "configs/server_config.h"
#include "engine/expert_stager.h"
#include "launcher/flags.h"
#include "launcher/served_plan.h"

namespace skipper {

// Throws UsageError for --policy without --policies, and for flags that say otherwise what serves.
void check_policy_flags(const CommandLine& line);

struct PolicyFile {
  std::string name;
  std::filesystem::path plan;
};

// "quality=a.json,throughput=b.json". Throws UsageError for anything else, and for a name that comes twice.
std::vector<PolicyFile> parse_policies(const std::string& text);
// The place of `name`, or of the first when it is empty. Throws UsageError when there is none of that name.
size_t place_of_policy(const std::vector<PolicyFile>& files, const std::string& name);

// What all plans say, as one rank reads them.
struct ServedPolicies {
  std::vector<ExpertPolicy> policies;
  std::vector<PolicyTraits> traits;  // of each
  std::string text;  // of all plans; the same on every rank
};

// Throws as load_served_plan() does, and InvalidFile for plans that cannot be switched between: an expert that is not on the same
// rank and slot as in the first plan, experts on disk, shadow copies.
ServedPolicies load_policies(const std::vector<PolicyFile>& files, const PlanReader& reader, ServerConfig& config);

}  // namespace skipper
