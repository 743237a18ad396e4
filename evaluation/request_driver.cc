#include "evaluation/request_driver.h"

#include "base/error.h"

namespace skipper {

RequestDriver::RequestDriver(Engine& engine, RequestQueue& queue, size_t max_in_flight)
    : engine_(engine), queue_(queue), max_in_flight_(max_in_flight) {}

std::vector<DrivenResult> RequestDriver::run(size_t count, const std::function<GenerationRequest(size_t)>& make,
                                             const ProgressCallback& progress) {
  std::vector<DrivenResult> results(count);
  size_t submitted = 0;
  size_t done = 0;
  std::string error;
  while (done < count && error.empty()) {
    for (; submitted < count && submitted - done < max_in_flight_; ++submitted) {
      Submission submission;
      submission.request = make(submitted);
      submission.sink = [&, i = submitted](const TokenEvent& event) {
        DrivenResult& result = results[i];
        if (event.token_id >= 0) result.generated_ids.push_back(event.token_id);
        if (event.finish_reason == FinishReason::kNone) return true;
        result.finish_reason = event.finish_reason;
        result.prompt_nll = event.prompt_nll;
        result.num_scored = event.num_scored;
        if (event.finish_reason == FinishReason::kError) error = event.error;
        ++done;
        return true;
      };
      queue_.push(std::move(submission));
    }
    engine_.step();
    progress(done, count);
  }
  if (!error.empty()) throw CommError(error);
  return results;
}

}  // namespace skipper
