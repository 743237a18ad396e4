#include "model/load_queue.h"

#include <exception>
#include <utility>

namespace skipper {
namespace {

// Threads meet after this much, so that progress shows; enough that the last of them is not long alone.
constexpr size_t kBytesPerRound = size_t{128} << 20;

}  // namespace

void LoadQueue::add(size_t num_bytes, std::function<void()> work) {
  num_bytes_ += num_bytes;
  jobs_.push_back({num_bytes, std::move(work)});
}

void LoadQueue::run(ThreadPool& workers, const LoadProgress& progress) {
  std::vector<std::exception_ptr> errors(jobs_.size());
  size_t done_bytes = 0;
  for (size_t begin = 0; begin < jobs_.size();) {
    const size_t end = end_of_round(begin);
    workers.parallel_for(static_cast<int64_t>(end - begin), [&](int64_t index) {
      const size_t job = begin + static_cast<size_t>(index);
      try {
        jobs_[job].work();
      } catch (...) {
        errors[job] = std::current_exception();
      }
    });
    for (size_t job = begin; job < end; ++job) {
      if (errors[job]) std::rethrow_exception(errors[job]);
      done_bytes += jobs_[job].num_bytes;
    }
    if (progress) progress(done_bytes, num_bytes_);
    begin = end;
  }
  jobs_.clear();
  num_bytes_ = 0;
}

size_t LoadQueue::end_of_round(size_t begin) const {
  size_t end = begin;
  for (size_t bytes = 0; end < jobs_.size() && bytes < kBytesPerRound; ++end) bytes += jobs_[end].num_bytes;
  return end;
}

}  // namespace skipper
