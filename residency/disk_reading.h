// What experts on disk have cost a rank, as plain numbers.
#pragma once

#include <cstdint>

namespace skipper {

// Sums since start. Every need is a hit, late or a miss.
struct CacheCounters {
  int64_t num_hits = 0;
  int64_t num_late = 0;      // foreseen, but still being read when needed
  int64_t num_misses = 0;
  int64_t num_foreseen = 0;  // reads begun ahead of need
  int64_t num_used = 0;      // of these, needed later
  int64_t num_wasted = 0;    // of these, given up without having been needed
  int64_t num_bytes = 0;     // read, foreseen ones included
  double busy_seconds = 0.0;     // of the disk
  double exposed_seconds = 0.0;  // the engine waited for the disk

  int64_t num_needs() const { return num_hits + num_late + num_misses; }
};

// What became of reading ahead by prediction, beside the cache's own counters.
struct ForesightReport {
  bool has_rule = false;  // false: nothing is predicted, by ForesightRule::kNone
  bool is_on = false;
  int64_t num_times_off = 0;
  double waited_without = 0.0;  // seconds per expert needed
  double waited_with = 0.0;
};

// Since start. Ranks send it as it is.
struct DiskReading {
  CacheCounters cache;
  int64_t num_in_memory = 0;  // needs of the rank's other experts, which rest in memory
  int64_t num_frames = 0;     // experts that the cache holds
  ForesightReport foresight;
};

}  // namespace skipper
