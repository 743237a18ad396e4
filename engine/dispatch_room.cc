#include "engine/dispatch_room.h"

#include <algorithm>
#include <cmath>

namespace skipper {

namespace {

// The largest of many layers, steps and pairs of ranks is far out already; GPUs pad to a bucket on top.
constexpr float kMargin = 1.125f;

}  // namespace

int32_t DispatchRoom::rows_for(const ForwardShape& shape) const {
  if (!shape.is_decode || num_observed_ < kLeastObserved) return 0;
  const auto rows = static_cast<int32_t>(std::ceil(kMargin * largest_share() * static_cast<float>(shape.most_rows)));
  return rows < shape.most_rows ? std::max(rows, 1) : 0;
}

void DispatchRoom::observe(const ForwardShape& shape, int64_t most_rows) {
  if (!shape.is_decode || most_rows == 0) return;
  shares_[num_observed_++ % kWindow] = static_cast<float>(most_rows) / static_cast<float>(shape.most_rows);
}

float DispatchRoom::largest_share() const {
  return *std::max_element(shares_.begin(), shares_.begin() + std::min(num_observed_, kWindow));
}

}  // namespace skipper
