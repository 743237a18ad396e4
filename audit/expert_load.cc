#include "audit/expert_load.h"

#include <glog/logging.h>

#include <algorithm>

namespace skipper {

void ExpertLoad::count(int moe_layer, const TokenPolicies& policies, const Routing& kept) {
  const int64_t top_k = kept.expert_ids.dim(1);
  const uint8_t* classes = policies.token_class.data<uint8_t>();
  for (int64_t t = 0; t < policies.num_tokens(); ++t) {
    int64_t* counts = counts_.data() + shape_.first_of(moe_layer, classes[t]);
    const int32_t* experts = kept.expert_ids.row<int32_t>(t);
    for (int64_t j = 0; j < top_k; ++j) {
      const bool is_at_owner = experts[j] != kNoExpert && experts[j] < shape_.num_experts;  // others run on shadows
      if (is_at_owner) ++counts[experts[j]];
    }
  }
}

void ExpertLoad::set(std::span<const int64_t> counts) {
  CHECK_EQ(counts.size(), counts_.size());
  std::ranges::copy(counts, counts_.begin());
}

}  // namespace skipper
