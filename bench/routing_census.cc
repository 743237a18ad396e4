#include "bench/routing_census.h"

#include <algorithm>

namespace skipper {

void RoutingCensus::observe(const MoeLayerConfig& layer, const Routing& kept) {
  double* seen = seen_.data() + seen_.size() - static_cast<size_t>((num_layers_ - layer.moe_layer) * num_experts_);
  for (const int32_t expert : kept.expert_ids.span<int32_t>()) {
    if (expert != kNoExpert) seen[expert] = 1.0;
  }
}

DistinctExperts RoutingCensus::take(Communicator& data, Stream& stream) {
  data.all_reduce_sum(seen_, stream);
  const auto num_rows = static_cast<int64_t>(seen_.size()) / num_experts_;
  DistinctExperts result{.min = num_experts_};
  int64_t total = 0;
  for (int64_t row = 0; row < num_rows; ++row) {
    const auto begin = seen_.begin() + row * num_experts_;
    const int64_t count = std::count_if(begin, begin + num_experts_, [](double tokens) { return tokens > 0.0; });
    result.min = std::min(result.min, count);
    result.max = std::max(result.max, count);
    total += count;
  }
  result.mean = static_cast<double>(total) / static_cast<double>(num_rows);
  double bytes = 0.0;
  for (size_t i = 0; i < seen_.size(); ++i) bytes += seen_[i] > 0.0 ? expert_bytes_[i % expert_bytes_.size()] : 0.0;
  result.bytes_per_step = bytes * static_cast<double>(num_layers_) / static_cast<double>(num_rows);
  seen_.clear();
  return result;
}

}  // namespace skipper
