#include "planning/load_packing.h"

#include <algorithm>
#include <numeric>

namespace skipper {
namespace {

struct Bin {
  double load = 0.0;
  int64_t bytes_left = 0;
  std::vector<int32_t> items;
};

std::vector<int32_t> by_falling_load(std::span<const PackItem> items) {
  std::vector<int32_t> order(items.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, std::ranges::greater(), [&](int32_t i) { return items[static_cast<size_t>(i)].load; });
  return order;
}

class Packer {
 public:
  Packer(std::span<const PackItem> items, const PackRules& rules) : items_(items), rules_(rules) {
    for (const int64_t bytes : rules.bin_bytes) bins_.push_back({.load = 0.0, .bytes_left = bytes, .items = {}});
  }

  Packing pack() {
    for (const int32_t i : by_falling_load(items_)) {
      Bin* const bin = least_loaded_for(item(i));
      if (bin == nullptr) {
        result_.left_over.push_back(i);
        continue;
      }
      bin->load += item(i).load;
      bin->bytes_left -= item(i).bytes;
      bin->items.push_back(i);
    }
    for (Bin& bin : bins_) result_.bins.push_back(std::move(bin.items));
    return std::move(result_);
  }

 private:
  const PackItem& item(int32_t i) const { return items_[static_cast<size_t>(i)]; }

  Bin* least_loaded_for(const PackItem& item) {
    Bin* best = nullptr;
    for (Bin& bin : bins_) {
      if (has_room(bin, item) && (best == nullptr || bin.load < best->load)) best = &bin;
    }
    return best;
  }

  bool has_room(const Bin& bin, const PackItem& wanted) const {
    if (bin.bytes_left < wanted.bytes || static_cast<int64_t>(bin.items.size()) >= rules_.max_items_per_bin) return false;
    if (rules_.same_kind == SameKind::kTogether) return true;
    return std::ranges::none_of(bin.items, [&](int32_t i) { return item(i).kind == wanted.kind; });
  }

  std::span<const PackItem> items_;
  const PackRules& rules_;
  std::vector<Bin> bins_;
  Packing result_;
};

// Moving lone items between empty bins would only shuffle weights among ranks.
bool is_one_for_each_bin(std::span<const PackItem> items, const PackRules& rules) {
  return std::ranges::equal(items, rules.bin_bytes, std::ranges::less_equal(), &PackItem::bytes);
}

}  // namespace

Packing pack_by_load(std::span<const PackItem> items, const PackRules& rules) {
  if (!is_one_for_each_bin(items, rules)) return Packer(items, rules).pack();
  Packing packing;
  for (size_t i = 0; i < items.size(); ++i) packing.bins.push_back({static_cast<int32_t>(i)});
  return packing;
}

}  // namespace skipper
