// Where in the run a collective was made, for the one line that reports its failure.
#pragma once

#include <chrono>
#include <span>
#include <string>

#include "comm/communicator.h"

namespace skipper {

// Cheap to build for every operation; turned into text only when one fails.
struct OperationSite {
  int rank = 0;
  OperationContext context;
  const char* operation = "";  // a string literal: "all_to_all_v"
};

// "rank 2: step 17, layer 3, dispatch: all_to_all_v"; parts that are not known are left out.
std::string describe(const OperationSite& site);

// How long an operation may take, and what to do when that was not enough.
struct OperationLimit {
  std::chrono::milliseconds time;
  const char* advice = "a rank may be dead or overloaded (raise comm.deadline_ms)";  // a string literal
};

// "<site> did not complete within 30000 ms, waiting for rank 2; a rank may be dead or overloaded (raise comm.deadline_ms)".
// `silent_ranks` may be empty: a collective does not tell who is missing.
std::string deadline_message(const OperationSite& site, const OperationLimit& limit, std::span<const int> silent_ranks);

// "<site>: the group was aborted: <reason>"
std::string abort_message(const OperationSite& site, const std::string& reason);

}  // namespace skipper
