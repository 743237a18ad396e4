#include "launcher/replay_flags.h"

#include <string>
#include <utility>

#include "base/error.h"

namespace skipper {

void check_replay_flags(const CommandLine& line) {
  const std::pair<const char*, bool> of_decisions[] = {{"operating_point", !line.operating_point.empty()},
                                                       {"level", line.level >= 0},
                                                       {"ranks", line.ranks >= 0}};
  const std::pair<const char*, bool> of_caches[] = {
      {"model", !line.model.empty()}, {"experts", !line.experts.empty()}, {"json", !line.json.empty()}};
  for (const auto& [flag, given] : of_decisions) {
    if (given && !line.cache.empty()) {
      throw UsageError(std::string("flags --cache and --") + flag +
                       " exclude each other: routes are replayed as they ran; leave one of them out");
    }
  }
  for (const auto& [flag, given] : of_caches) {
    if (given && line.cache.empty()) throw UsageError(std::string("flag --") + flag + " needs --cache, whose replay it is for");
  }
  if (!line.experts.empty() && line.model.empty()) {
    throw UsageError("flag --experts needs --model DIR, which says how many weights an expert has");
  }
}

}  // namespace skipper
