// Under which level each token of a request ran: what recomputing it needs for the same bits.
#pragma once

#include <cstdint>
#include <vector>

namespace skipper {

// The tokens from the end of the run before up to `end` ran at `level`.
struct LevelRun {
  int32_t end = 0;
  int32_t level = 0;

  bool operator==(const LevelRun&) const = default;
};

// A token keeps the level it first ran at, whatever happens later: preemption, replay and chunking compute it again with that.
class LevelHistory {
 public:
  LevelHistory() = default;
  // Ascending ends, levels of one byte.
  explicit LevelHistory(std::vector<LevelRun> runs);

  // Tokens that have a level; those from here on have never run.
  int32_t end() const { return runs_.empty() ? 0 : runs_.back().end; }
  // The level of token `position`; `current` for one that has never run.
  uint8_t level_at(int32_t position, uint8_t current) const;
  // How many of the `num_tokens` tokens from `position` on, one after the other, have its level. At least 1.
  int32_t uniform_length(int32_t position, int32_t num_tokens, uint8_t current) const;
  // The tokens before `end` have run; those without a level did so at `level`.
  void record(int32_t end, uint8_t level);
  // The level of the newest token; 0 before there is one.
  uint8_t latest() const { return runs_.empty() ? uint8_t{0} : static_cast<uint8_t>(runs_.back().level); }

  const std::vector<LevelRun>& runs() const { return runs_; }
  bool operator==(const LevelHistory&) const = default;

 private:
  int32_t end_of_run(int32_t position, int32_t limit) const;

  std::vector<LevelRun> runs_;  // neighbours differ in level
};

}  // namespace skipper
