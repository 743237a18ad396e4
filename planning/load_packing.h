// Items into bins, so that loads are alike and bytes fit: longest processing time first.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace skipper {

struct PackItem {
  double load = 0.0;   // not negative
  int64_t bytes = 0;
  int32_t kind = 0;    // see PackRules::same_kind
};

// Whether one bin may take several items of a kind.
enum class SameKind : uint8_t { kTogether, kApart };

struct PackRules {
  std::span<const int64_t> bin_bytes;  // room in each bin, hard
  int64_t max_items_per_bin = std::numeric_limits<int64_t>::max();
  SameKind same_kind = SameKind::kTogether;
};

struct Packing {
  std::vector<std::vector<int32_t>> bins;  // indices of items in the order in which they came
  std::vector<int32_t> left_over;          // items that fit nowhere, heaviest first
};

// Items by falling load (equal ones in their order), each into the bin with the least load of those that have room for it, the
// first of equals. As many items as bins stay in order, one in each, where they fit.
Packing pack_by_load(std::span<const PackItem> items, const PackRules& rules);

}  // namespace skipper
