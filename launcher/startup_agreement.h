// Start-up in step: what fails on one rank fails on all, with one message.
#pragma once

#include <functional>
#include <string>

#include "comm/communicator.h"

namespace skipper {

// Runs `work` on every rank; each throws or not. When any threw, every rank throws an Error with the message of the lowest
// such rank (prefixed with "rank N: " unless that is rank 0), so that rank 0 can print it once and no rank waits for one
// that gave up. A UsageError stays one; InvalidRequest, InvalidFile and so on all become Error. All ranks call it together.
void run_together(Communicator& control, const std::function<void()>& work);

// Throws an Error naming the ranks when `value` ("model fingerprint", "settings") is not the same text everywhere.
void require_same_everywhere(Communicator& control, const std::string& what, const std::string& value);

}  // namespace skipper
