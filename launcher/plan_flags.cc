#include "launcher/plan_flags.h"

#include <cmath>
#include <string>
#include <utility>

#include "base/error.h"
#include "launcher/policies.h"
#include "planning/memory_size.h"

namespace skipper {
namespace {

// Empty: not given.
void check_memory(const std::string& flag, const std::string& text) {
  if (text.empty()) return;
  try {
    parse_memory_sizes(text, "flag --" + flag);
  } catch (const InvalidRequest& error) {
    throw UsageError(error.what());
  }
}

}  // namespace

void check_plan_flags(const CommandLine& line) {
  if (line.memory.empty() && line.command == "plan") {
    throw UsageError("flag --memory is missing; give the memory of each rank, as 2G or 80G,80G,40G");
  }
  const std::pair<const char*, bool> with_memory[] = {{"host_memory", !line.host_memory.empty()},
                                                      {"profile", !line.profile.empty()},
                                                      {"machine", !line.machine.empty()},
                                                      {"target", !line.target.empty()},
                                                      {"max_loss", line.max_loss >= 0.0}};
  for (const auto& [flag, given] : with_memory) {
    const bool is_of_use = !line.tenant.empty() || line.command == "frontier" || may_plan_live(line, flag);
    if (given && line.memory.empty() && !is_of_use) {
      throw UsageError(std::string("flag --") + flag + " needs --memory, for which to plan");
    }
  }
  if (!line.disk.empty() && line.memory.empty() && line.tenant.empty() && line.plan.empty() && line.command != "machine") {
    throw UsageError("flag --disk needs --plan or --memory, which say what rests there");
  }
  if (!line.memory.empty() && (!line.plan.empty() || !line.experts.empty())) {
    throw UsageError(std::string("flags --memory and ") + (line.plan.empty() ? "--experts" : "--plan") +
                     " exclude each other, for both say the format of every expert; give one");
  }
  check_memory("memory", line.memory);
  check_memory("host_memory", line.host_memory);
  check_memory("shadow_memory", line.shadow_memory);
  if (!line.target.empty() && line.target != "quality" && line.target != "throughput") {
    throw UsageError("flag --target: '" + line.target + "' is unknown; expected quality or throughput");
  }
  if (!line.target.empty() && line.max_loss >= 0.0) {
    throw UsageError("flags --target and --max_loss exclude each other; give one");
  }
  if (std::isnan(line.max_loss)) throw UsageError("flag --max_loss: nan is no loss; expected a number from 0 up");
}

void check_tenant_flags(const CommandLine& line) {
  if (line.command == "tenants") {
    if (line.tenants.empty()) throw UsageError("flag --tenants is missing; give the file of the servers that share memory");
    return;
  }
  if (line.tenants.empty() != line.tenant.empty()) {
    throw UsageError(line.tenant.empty() ? "flag --tenants needs --tenant NAME, which of them this server is"
                                         : "flag --tenant needs --tenants FILE, of which it is one");
  }
  if (line.tenant.empty()) return;
  const std::pair<const char*, bool> others[] = {{"memory", !line.memory.empty()},
                                                 {"plan", !line.plan.empty()},
                                                 {"policies", !line.policies.empty()},
                                                 {"experts", !line.experts.empty()},
                                                 {"audit_file", !line.audit_file.empty()}};
  for (const auto& [flag, given] : others) {
    if (!given) continue;
    throw UsageError(std::string("flags --tenant and --") + flag + " exclude each other: a tenant plans for its share; give one");
  }
}

}  // namespace skipper
