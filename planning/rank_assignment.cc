#include "planning/rank_assignment.h"

#include <algorithm>
#include <numeric>

namespace skipper {
namespace {

class Assignment {
 public:
  Assignment(std::span<const RankedExpert> experts, int num_layers, std::span<const TierRoom> rooms)
      : experts_(experts),
        num_layers_(static_cast<size_t>(num_layers)),
        layer_size_(num_layers == 0 ? 0 : experts.size() / num_layers_),
        used_(rooms.size()),
        ranks_(experts.size()) {
    for (const TierRoom& room : rooms) {
      rooms_.emplace_back();
      for (size_t tier = 0; tier < kNumMemoryTiers; ++tier) rooms_.back()[tier] = static_cast<double>(room[tier]);
    }
  }

  std::vector<int32_t> run() {
    for (size_t layer = 0; layer < num_layers_; ++layer) place_layer(layer);
    return std::move(ranks_);
  }

 private:
  using TierValues = std::array<double, kNumMemoryTiers>;

  static size_t tier_of(const RankedExpert& expert) { return static_cast<size_t>(expert.tier); }

  // Heaviest first, each to the rank with the least load of this layer among those that are not ahead of their share of bytes.
  void place_layer(size_t layer) {
    std::vector<size_t> order(layer_size_);
    std::iota(order.begin(), order.end(), layer * layer_size_);
    for (const size_t i : order) placed_[tier_of(experts_[i])] += static_cast<double>(experts_[i].num_bytes);
    std::ranges::stable_sort(order, std::ranges::greater(), [&](size_t i) { return experts_[i].seconds; });
    std::vector<double> loads(rooms_.size());
    for (const size_t i : order) {
      const size_t rank = rank_for(experts_[i], loads);
      ranks_[i] = static_cast<int32_t>(rank);
      loads[rank] += experts_[i].seconds;
      used_[rank][tier_of(experts_[i])] += static_cast<double>(experts_[i].num_bytes);
    }
  }

  size_t rank_for(const RankedExpert& expert, const std::vector<double>& loads) const {
    const size_t tier = tier_of(expert);
    size_t best = rooms_.size(), roomiest = 0;
    for (size_t rank = 0; rank < rooms_.size(); ++rank) {
      if (room_left(rank, tier) > room_left(roomiest, tier)) roomiest = rank;
      if (room_left(rank, tier) < static_cast<double>(expert.num_bytes)) continue;
      if (best == rooms_.size() || loads[rank] < loads[best]) best = rank;
    }
    return best == rooms_.size() ? roomiest : best;
  }

  // Until this layer a rank should hold its share, by room, of the bytes that all layers so far have in the tier.
  double room_left(size_t rank, size_t tier) const {
    double all = 0.0;
    for (const TierValues& room : rooms_) all += room[tier];
    const double share = all > 0.0 ? rooms_[rank][tier] / all : 0.0;
    return share * placed_[tier] * kLeeway - used_[rank][tier];
  }

  // Whole experts seldom make exact shares.
  static constexpr double kLeeway = 1.0 + 1e-9;

  std::span<const RankedExpert> experts_;
  size_t num_layers_;
  size_t layer_size_;
  std::vector<TierValues> rooms_;
  std::vector<TierValues> used_;
  TierValues placed_{};  // bytes of all layers up to the present one
  std::vector<int32_t> ranks_;
};

}  // namespace

std::vector<int32_t> assign_ranks(std::span<const RankedExpert> experts, int num_layers, std::span<const TierRoom> rooms) {
  return Assignment(experts, num_layers, rooms).run();
}

}  // namespace skipper
