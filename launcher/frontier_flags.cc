#include "launcher/frontier_flags.h"

#include <string>
#include <utility>

#include "base/error.h"

namespace skipper {

void check_frontier_flags(const CommandLine& line) {
  const std::pair<const char*, bool> of_levels[] = {{"methods", !line.methods.empty()},
                                                    {"ratings", !line.ratings.empty()},
                                                    {"grid", line.grid >= 0},
                                                    {"experts", !line.experts.empty()},
                                                    {"plan", !line.plan.empty()},
                                                    {"shadow_grid", line.shadow_grid >= 0},
                                                    {"calibration", !line.calibration.empty()}};
  const std::pair<const char*, bool> of_plans[] = {{"memory", !line.memory.empty()},
                                                   {"profile", !line.profile.empty()},
                                                   {"machine", !line.machine.empty()},
                                                   {"text_windows", line.text_windows >= 0}};
  for (const auto& [flag, given] : of_levels) {
    if (given && line.precision) {
      throw UsageError(std::string("flag --") + flag + " is of levels of skipping; leave it or --precision out");
    }
  }
  for (const auto& [flag, given] : of_plans) {
    if (given && !line.precision) throw UsageError(std::string("flag --") + flag + " needs --precision true, which sweeps plans");
  }
  if (line.shadow_grid > 0 && line.plan.empty()) {
    throw UsageError("flag --shadow_grid needs --plan PLAN.json, made with 'skipper plan --shadow_format'");
  }
  if (line.shadow_grid > 0 && (line.objective.empty() || line.objective == "pairs")) {
    throw UsageError("flag --shadow_grid needs --objective bytes or time: pairs on shadow copies are not skipped");
  }
  if (!line.precision && line.calibration.empty()) {
    throw UsageError("flag --calibration is missing; give calibration.json of 'skipper calibrate'");
  }
}

}  // namespace skipper
