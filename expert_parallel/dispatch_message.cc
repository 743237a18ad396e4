#include "expert_parallel/dispatch_message.h"

#include <string>

#include "base/error.h"

namespace skipper {

namespace {

[[noreturn]] void refuse(int source, const std::string& what) {
  throw CommError("dispatch counts of rank " + std::to_string(source) + ": " + what +
                  "; start all ranks with the same build, model and configuration");
}

}  // namespace

void check_counts(const DispatchCounts& counts, const DispatchCapacity& capacity, int source) {
  for (size_t c = 0; c < kNumTokenClasses; ++c) {
    if (counts.tokens[c] < 0 || counts.unskipped_tokens[c] < counts.tokens[c]) {
      refuse(source, std::to_string(counts.tokens[c]) + " of " + std::to_string(counts.unskipped_tokens[c]) + " " +
                         std::string(kTokenClassNames[c]) + " tokens");
    }
  }
  const int64_t num_tokens = counts.num_tokens();
  if (num_tokens > capacity.max_rows) {
    refuse(source, std::to_string(num_tokens) + " tokens, room for " + std::to_string(capacity.max_rows));
  }
  if (counts.pairs < num_tokens || counts.pairs > num_tokens * capacity.top_k) {
    refuse(source, std::to_string(counts.pairs) + " experts for " + std::to_string(num_tokens) + " tokens with top_k " +
                       std::to_string(capacity.top_k));
  }
}

}  // namespace skipper
