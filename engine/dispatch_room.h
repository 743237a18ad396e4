// How many rows get room on their way from one GPU to another in the next decode step. Rank 0 only.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "cluster/forward_shape.h"

namespace skipper {

// Without skipping a step's tokens go to nearly every rank; the more pairs are skipped, the fewer rows any two ranks exchange,
// and the less room they need. The room follows the largest demand of the last decode steps, as a share of their rows; where that
// is too little, the step runs once more, and its demand is then the largest. Engine thread only.
class DispatchRoom {
 public:
  // ForwardShape::slot_rows of a step: 0 unless less room than for all rows will do.
  int32_t rows_for(const ForwardShape& shape) const;
  // After the step. most_rows: DispatchDemand.
  void observe(const ForwardShape& shape, int64_t most_rows);
  // Other levels have another demand.
  void forget() { num_observed_ = 0; }

 private:
  static constexpr size_t kWindow = 64;
  static constexpr size_t kLeastObserved = 16;

  float largest_share() const;

  std::array<float, kWindow> shares_{};  // of the last steps: largest demand ÷ rows
  size_t num_observed_ = 0;
};

}  // namespace skipper
