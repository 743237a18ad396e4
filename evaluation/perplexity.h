// Perplexity of texts under the served model.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "evaluation/request_driver.h"

namespace skipper {

struct PerplexityResult {
  double perplexity = 0.0;
  int64_t tokens = 0;  // predicted tokens
};

// Cuts `tokens` into consecutive windows of `window` tokens without carry-over; a window's first token is not predicted.
// Returns exp(mean −log p) over the predicted tokens.
PerplexityResult measure_perplexity(const std::vector<int32_t>& tokens, int64_t window, uint8_t level, RequestDriver& driver,
                                    const ProgressCallback& progress);

}  // namespace skipper
