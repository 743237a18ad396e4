// Bookkeeping of one rank's KV blocks, kept at rank 0; the memory itself is model/kv_cache on the rank.
#pragma once

#include <cstdint>
#include <vector>

namespace skipper {

// Hands out block indices, lowest first after start; engine thread only.
class BlockAllocator {
 public:
  explicit BlockAllocator(int64_t num_blocks);

  int64_t num_blocks() const { return num_blocks_; }
  int64_t num_free() const { return static_cast<int64_t>(free_.size()); }
  // Appends `count` blocks to `blocks`. The caller has checked num_free().
  void allocate(int64_t count, std::vector<int32_t>& blocks);
  // Takes all of `blocks` back and clears it.
  void release(std::vector<int32_t>& blocks);

 private:
  int64_t num_blocks_;
  std::vector<int32_t> free_;  // the last element goes out next
};

}  // namespace skipper
