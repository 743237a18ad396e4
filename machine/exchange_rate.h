// How fast two ranks exchange bytes by the collective that dispatch and combine use.
#pragma once

#include <cstdint>
#include <vector>

#include "comm/communicator.h"

namespace skipper {

struct RankPair {
  int first = 0;
  int second = 1;
};

// Both ranks of the pair send `num_bytes` to one another, `num_rounds` times for each of `num_samples`; the others take part with
// nothing, as ranks without tokens do. Returns the seconds of one exchange for each sample, the same on every rank. All ranks
// call it together.
struct ExchangeMeasurement {
  RankPair pair;
  int64_t num_bytes = 1;
  int num_rounds = 1;
  int num_samples = 1;
};
std::vector<double> exchange_seconds(Communicator& data, const ExchangeMeasurement& measurement);

}  // namespace skipper
