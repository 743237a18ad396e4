#include "engine/level_history.h"

#include <glog/logging.h>

#include <algorithm>

namespace skipper {

LevelHistory::LevelHistory(std::vector<LevelRun> runs) {
  for (const LevelRun& run : runs) {
    CHECK_GT(run.end, end());
    CHECK(run.level >= 0 && run.level <= UINT8_MAX) << run.level;
    record(run.end, static_cast<uint8_t>(run.level));
  }
}

uint8_t LevelHistory::level_at(int32_t position, uint8_t current) const {
  for (const LevelRun& run : runs_) {
    if (position < run.end) return static_cast<uint8_t>(run.level);
  }
  return current;
}

int32_t LevelHistory::uniform_length(int32_t position, int32_t num_tokens, uint8_t current) const {
  const uint8_t level = level_at(position, current);
  const int32_t wanted_end = position + num_tokens;
  int32_t uniform_end = position;
  while (uniform_end < wanted_end && level_at(uniform_end, current) == level) uniform_end = end_of_run(uniform_end, wanted_end);
  return std::min(uniform_end, wanted_end) - position;
}

// Where the tokens of one run with `position` end: at most at `limit` for those that have never run.
int32_t LevelHistory::end_of_run(int32_t position, int32_t limit) const {
  for (const LevelRun& run : runs_) {
    if (position < run.end) return run.end;
  }
  return limit;
}

void LevelHistory::record(int32_t end, uint8_t level) {
  if (end <= this->end()) return;
  if (!runs_.empty() && runs_.back().level == level) {
    runs_.back().end = end;
  } else {
    runs_.push_back({.end = end, .level = level});
  }
}

}  // namespace skipper
