// The threads that share the kernels' work of one rank: the caller works too, the others spin briefly and then sleep.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace skipper {

// One thread at a time may call; a call from inside a task runs its tasks on the calling thread alone.
class ThreadPool {
 public:
  // `num_threads` >= 1 counts the caller: one thread starts none.
  explicit ThreadPool(int num_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  // A pool without threads of its own, shared by everybody who was given none.
  static ThreadPool& caller_only();

  int num_threads() const { return static_cast<int>(workers_.size()) + 1; }

  // task(i) for every i in [0, num_tasks), each once, in any order and on any thread; returns when all are done. Threads
  // take the next index as they get free, so tasks may differ in length. A task must not throw.
  template <typename Task>
  void parallel_for(int64_t num_tasks, const Task& task) {
    run({&task, [](const void* object, int64_t index) { (*static_cast<const Task*>(object))(index); }, num_tasks});
  }

  // task(begin, end) over pieces of [0, size) of at least `grain` elements, where there are so many; a few per thread.
  template <typename Task>
  void parallel_ranges(int64_t size, int64_t grain, const Task& task) {
    const int64_t num_pieces = std::clamp<int64_t>(size / std::max<int64_t>(grain, 1), 1, num_threads() * kPiecesPerThread);
    parallel_for(size > 0 ? num_pieces : 0,
                 [&](int64_t piece) { task(size * piece / num_pieces, size * (piece + 1) / num_pieces); });
  }

 private:
  static constexpr int64_t kPiecesPerThread = 4;

  struct Job {
    const void* task = nullptr;
    void (*call)(const void* task, int64_t index) = nullptr;
    int64_t num_tasks = 0;
  };

  void run(const Job& job);
  void work();
  void take_tasks();
  void wait_for_next_job(uint32_t seen);

  std::vector<std::thread> workers_;
  Job job_;
  alignas(64) std::atomic<int64_t> next_task_{0};
  alignas(64) std::atomic<uint32_t> job_number_{0};
  std::atomic<bool> open_{false};  // workers may enter the job
  std::atomic<bool> stopping_{false};
  alignas(64) std::atomic<int32_t> num_inside_{0};  // workers that may touch job_
};

}  // namespace skipper
