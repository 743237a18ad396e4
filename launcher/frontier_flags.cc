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
  if (!line.precision && line.calibration.empty()) {
    throw UsageError("flag --calibration is missing; give calibration.json of 'skipper calibrate'");
  }
}

}  // namespace skipper
