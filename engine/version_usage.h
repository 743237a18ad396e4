// On which versions of the experts a request's tokens ran.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "cluster/step_plan.h"

namespace skipper {

// Tokens computed in steps of one version (ExpertOrder::version), or on the experts of a guard (kReferenceVersion). Tokens that
// are computed again after a preemption count again.
struct VersionTokens {
  uint32_t version = kFirstExpertVersion;
  int64_t num_tokens = 0;

  bool operator==(const VersionTokens&) const = default;
};

// One entry for each version, in the order in which they came.
inline void add_tokens(const VersionTokens& more, std::vector<VersionTokens>& sums) {
  const auto found = std::ranges::find(sums, more.version, &VersionTokens::version);
  if (found == sums.end()) {
    sums.push_back(more);
  } else {
    found->num_tokens += more.num_tokens;
  }
}

}  // namespace skipper
