// Which rank of how many, where no communicator is at hand.
#pragma once

namespace skipper {

struct RankOfGroup {
  int rank = 0;
  int num_ranks = 1;
};

}  // namespace skipper
