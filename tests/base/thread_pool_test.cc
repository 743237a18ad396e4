#include "base/thread_pool.h"

#include <gtest/gtest.h>

#include <chrono>
#include <ctime>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

namespace skipper {
namespace {

using std::chrono_literals::operator""ms;

double process_seconds() {
  timespec time{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

class ThreadPoolTest : public ::testing::TestWithParam<int> {
 protected:
  ThreadPool pool_{GetParam()};
};

TEST_P(ThreadPoolTest, RunsEveryTaskExactlyOnce) {
  for (const int64_t num_tasks : {0, 1, 2, 7, 1000}) {
    std::vector<std::atomic<int>> runs(static_cast<size_t>(num_tasks));
    pool_.parallel_for(num_tasks, [&](int64_t i) { ++runs[static_cast<size_t>(i)]; });
    for (const auto& count : runs) EXPECT_EQ(count, 1);
  }
}

TEST_P(ThreadPoolTest, HasFinishedAllTasksWhenItReturns) {
  std::vector<int64_t> sums(64);
  for (int64_t round = 0; round < 2000; ++round) {
    // Plain memory, read right after: a task that ran late would be lost here and seen by the thread sanitizer.
    pool_.parallel_for(64, [&](int64_t i) { sums[static_cast<size_t>(i)] += i; });
    if (round % 500 == 0) std::this_thread::sleep_for(1ms);  // so that workers fall asleep now and then
  }
  for (int64_t i = 0; i < 64; ++i) EXPECT_EQ(sums[static_cast<size_t>(i)], 2000 * i);
}

TEST_P(ThreadPoolTest, CutsARangeWithoutGapsOrOverlaps) {
  for (const int64_t size : {0, 1, 5, 97, 4096}) {
    std::vector<std::atomic<int>> visits(static_cast<size_t>(size));
    pool_.parallel_ranges(size, 10, [&](int64_t begin, int64_t end) {
      EXPECT_TRUE(size < 10 || end - begin >= 10);
      for (int64_t i = begin; i < end; ++i) ++visits[static_cast<size_t>(i)];
    });
    for (const auto& count : visits) EXPECT_EQ(count, 1);
  }
}

TEST_P(ThreadPoolTest, RunsTasksOfATaskInPlace) {
  std::atomic<int> inner_runs = 0;
  pool_.parallel_for(4, [&](int64_t) {
    const auto thread = std::this_thread::get_id();
    pool_.parallel_for(3, [&](int64_t) {
      EXPECT_EQ(std::this_thread::get_id(), thread);
      ++inner_runs;
    });
  });
  EXPECT_EQ(inner_runs, 12);
}

INSTANTIATE_TEST_SUITE_P(Threads, ThreadPoolTest, ::testing::Values(1, 2, 3, 8));

TEST(ThreadPool, UsesItsThreads) {
  ThreadPool pool(3);
  EXPECT_EQ(pool.num_threads(), 3);
  std::mutex mutex;
  std::set<std::thread::id> seen;
  std::atomic<int> waiting = 0;
  pool.parallel_for(3, [&](int64_t) {
    ++waiting;
    while (waiting < 3) std::this_thread::yield();  // ends only when three threads are here together
    const std::lock_guard lock(mutex);
    seen.insert(std::this_thread::get_id());
  });
  EXPECT_EQ(seen.size(), 3u);
  EXPECT_TRUE(seen.contains(std::this_thread::get_id()));
}

TEST(ThreadPool, SleepsWhenThereIsNothingToDo) {
  ThreadPool pool(4);
  pool.parallel_for(8, [](int64_t) {});
  std::this_thread::sleep_for(20ms);  // longer than anybody spins
  const double before = process_seconds();
  std::this_thread::sleep_for(300ms);
  EXPECT_LT(process_seconds() - before, 0.03);
}

}  // namespace
}  // namespace skipper
