#include "evaluation/request_driver.h"

#include <algorithm>
#include <memory>

#include "base/error.h"

namespace skipper {
namespace {

// Shared with the sinks: the engine may still end requests after run() was left by an exception.
struct DrivenRun {
  std::vector<DrivenResult> results;
  size_t done = 0;
  std::string error;

  void take(size_t index, const TokenEvent& event) {
    DrivenResult& result = results[index];
    if (event.token_id >= 0) result.generated_ids.push_back(event.token_id);
    if (event.finish_reason == FinishReason::kNone) return;
    result.finish_reason = event.finish_reason;
    result.prompt_nll = event.prompt_nll;
    result.num_scored = event.num_scored;
    result.distance = event.distance;
    result.usage = event.usage;
    if (event.finish_reason == FinishReason::kError) error = event.error;
    ++done;
  }
};

}  // namespace

RequestDriver::RequestDriver(Engine& engine, RequestQueue& queue, size_t max_in_flight)
    : engine_(engine),
      queue_(queue),
      max_in_flight_(std::min(max_in_flight, static_cast<size_t>(engine.config().queue_capacity))) {}

std::vector<DrivenResult> RequestDriver::run(size_t count, const std::function<GenerationRequest(size_t)>& make,
                                             const ProgressCallback& progress) {
  const auto run = std::make_shared<DrivenRun>();
  run->results.resize(count);
  size_t submitted = 0;
  while (run->done < count && run->error.empty()) {
    for (; submitted < count && submitted - run->done < max_in_flight_; ++submitted) {
      Submission submission;
      submission.request = make(submitted);
      validate_request(submission.request, engine_.config());
      submission.sink = [run, index = submitted](const TokenEvent& event) {
        run->take(index, event);
        return true;
      };
      queue_.push(std::move(submission));
    }
    engine_.step();
    progress(run->done, count);
  }
  if (!run->error.empty()) throw CommError(run->error);
  return std::move(run->results);
}

}  // namespace skipper
