#include "evaluation/perplexity.h"

#include <algorithm>
#include <cmath>

namespace skipper {

PerplexityResult measure_perplexity(const std::vector<int32_t>& tokens, int64_t window, uint8_t level, RequestDriver& driver,
                                    const ProgressCallback& progress) {
  const auto num_tokens = static_cast<int64_t>(tokens.size());
  int64_t num_windows = (num_tokens + window - 1) / window;
  // A last window of one token predicts nothing.
  if (num_windows > 0 && num_tokens - (num_windows - 1) * window == 1) --num_windows;
  const auto make = [&](size_t i) {
    GenerationRequest request;
    const int64_t begin = static_cast<int64_t>(i) * window;
    const int64_t end = std::min(begin + window, num_tokens);
    request.prompt_ids.assign(tokens.begin() + begin, tokens.begin() + end);
    request.level = level;
    request.score_prompt = true;
    return request;
  };
  double nll = 0.0;
  PerplexityResult result;
  for (const DrivenResult& one : driver.run(static_cast<size_t>(num_windows), make, progress)) {
    nll += one.prompt_nll;
    result.tokens += one.num_scored;
  }
  result.perplexity = result.tokens == 0 ? 0.0 : std::exp(nll / static_cast<double>(result.tokens));
  return result;
}

}  // namespace skipper
