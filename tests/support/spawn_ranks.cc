#include "tests/support/spawn_ranks.h"

#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "comm/thread_communicator.h"

namespace skipper {

namespace {

// The exception that was thrown first; later ones are mostly its echo in other ranks.
class FirstException {
 public:
  void keep(std::exception_ptr exception) {
    const std::lock_guard lock(mutex_);
    if (!first_) first_ = exception;
  }
  void rethrow() const {
    if (first_) std::rethrow_exception(first_);
  }

 private:
  std::mutex mutex_;
  std::exception_ptr first_;
};

}  // namespace

void spawn_ranks(int num_ranks, const RankBody& body, const CommConfig& config) {
  spawn_engine_ranks(num_ranks, [&](Communicator& control, Communicator&) { body(control); }, config);
}

void spawn_engine_ranks(int num_ranks, const EngineRankBody& body, const CommConfig& config) {
  const auto control = make_thread_communicators(num_ranks, config);
  const auto data = make_thread_communicators(num_ranks, config);
  FirstException failure;
  const auto run_rank = [&](size_t rank) {
    try {
      body(*control[rank], *data[rank]);
    } catch (...) {
      failure.keep(std::current_exception());
      control[rank]->abort("the body of rank " + std::to_string(rank) + " threw");
      data[rank]->abort("the body of rank " + std::to_string(rank) + " threw");
    }
  };
  std::vector<std::thread> threads;
  for (size_t rank = 0; rank < control.size(); ++rank) threads.emplace_back(run_rank, rank);
  for (std::thread& thread : threads) thread.join();
  failure.rethrow();
}

}  // namespace skipper
