// How host kernels share the rows of a tensor among threads.
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/thread_pool.h"

namespace skipper::cpu {

// Handing work to a thread that waits costs 1-2 us, in which one core moves 64 KB within its second-level cache, and the rows
// of a small batch lie in the caller's cache: pieces are larger, so that a few rows stay on the caller.
inline constexpr int64_t kPieceBytes = 256 * 1024;

struct RowWork {
  int64_t num_rows = 0;
  int64_t row_bytes = 0;  // read and written; for a row of much arithmetic, what a copy would move in the same time
};

// task(begin, end) over pieces of the rows. Rows must not depend on one another: no bit depends on how they are cut.
template <typename Task>
void for_row_pieces(ThreadPool& workers, const RowWork& work, const Task& task) {
  workers.parallel_ranges(work.num_rows, kPieceBytes / std::max<int64_t>(work.row_bytes, 1) + 1, task);
}

}  // namespace skipper::cpu
