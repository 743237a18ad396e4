// Runs many requests through an engine from the engine thread, in a fixed order.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "engine/engine.h"

namespace skipper {

// The end of one driven request.
struct DrivenResult {
  std::vector<int32_t> generated_ids;
  FinishReason finish_reason = FinishReason::kNone;
  double prompt_nll = 0.0;
  int32_t num_scored = 0;
  ReferenceDistance distance = {};
  SkipUsage usage = {};
};

// Told after each finished request: how many of how many.
using ProgressCallback = std::function<void(size_t done, size_t total)>;

// Keeps up to `max_in_flight` requests running. What is submitted at which step depends on results alone, never on time, so a
// repeated run makes the same steps. Rank 0, engine thread only.
class RequestDriver {
 public:
  RequestDriver(Engine& engine, RequestQueue& queue, size_t max_in_flight);

  // make(i) is asked for request i just before it is submitted. Results in order of i. Throws the first error of a request.
  std::vector<DrivenResult> run(size_t count, const std::function<GenerationRequest(size_t)>& make,
                                const ProgressCallback& progress);

 private:
  Engine& engine_;
  RequestQueue& queue_;
  size_t max_in_flight_;
};

}  // namespace skipper
