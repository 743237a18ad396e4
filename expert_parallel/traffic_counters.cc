#include "expert_parallel/traffic_counters.h"

#include <array>
#include <cstddef>

namespace skipper {

namespace {

void add(int64_t& sum, int64_t value, int64_t sign) { sum += sign * value; }

template <typename T, size_t N>
void add(std::array<T, N>& sums, const std::array<T, N>& values, int64_t sign) {
  for (size_t i = 0; i < N; ++i) add(sums[i], values[i], sign);
}

void add(TrafficCounters& sums, const TrafficCounters& values, int64_t sign) {
  add(sums.payload_bytes, values.payload_bytes, sign);
  add(sums.saved_bytes, values.saved_bytes, sign);
  add(sums.wire_bytes, values.wire_bytes, sign);
  add(sums.pairs_run, values.pairs_run, sign);
  add(sums.pairs_skipped, values.pairs_skipped, sign);
  add(sums.pairs_on_shadows, values.pairs_on_shadows, sign);
}

}  // namespace

TrafficCounters& TrafficCounters::operator+=(const TrafficCounters& other) {
  add(*this, other, 1);
  return *this;
}

TrafficCounters TrafficCounters::operator-(const TrafficCounters& other) const {
  TrafficCounters difference = *this;
  add(difference, other, -1);
  return difference;
}

int64_t TrafficCounters::total_payload_bytes(Hop hop) const {
  int64_t sum = 0;
  for (const auto& by_hop : payload_bytes) {
    for (const int64_t bytes : by_hop[static_cast<size_t>(hop)]) sum += bytes;
  }
  return sum;
}

}  // namespace skipper
