// The copies that loading makes: collected first, so that what is wrong with a checkpoint shows early, then made by all threads.
#pragma once

#include <cstddef>
#include <functional>
#include <vector>

#include "base/thread_pool.h"

namespace skipper {

// Sees the bytes read so far and those to read, on the caller's thread.
using LoadProgress = std::function<void(size_t done_bytes, size_t total_bytes)>;

class LoadQueue {
 public:
  // `work` reads `num_bytes` of the checkpoint and may throw; it runs once, on any thread.
  void add(size_t num_bytes, std::function<void()> work);
  size_t num_bytes() const { return num_bytes_; }

  // Does all work added so far. Throws the error of the earliest that failed. `progress` may be empty.
  void run(ThreadPool& workers, const LoadProgress& progress);

 private:
  struct Job {
    size_t num_bytes;
    std::function<void()> work;
  };
  size_t end_of_round(size_t begin) const;

  std::vector<Job> jobs_;
  size_t num_bytes_ = 0;
};

}  // namespace skipper
