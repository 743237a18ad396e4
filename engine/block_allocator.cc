#include "engine/block_allocator.h"

#include <glog/logging.h>

namespace skipper {

BlockAllocator::BlockAllocator(int64_t num_blocks) : num_blocks_(num_blocks) {
  free_.reserve(static_cast<size_t>(num_blocks));
  for (int64_t block = num_blocks - 1; block >= 0; --block) free_.push_back(static_cast<int32_t>(block));
}

void BlockAllocator::allocate(int64_t count, std::vector<int32_t>& blocks) {
  CHECK_LE(count, num_free());
  for (int64_t i = 0; i < count; ++i) {
    blocks.push_back(free_.back());
    free_.pop_back();
  }
}

void BlockAllocator::release(std::vector<int32_t>& blocks) {
  // Backwards, so that the same blocks go out in the same order again.
  for (auto block = blocks.rbegin(); block != blocks.rend(); ++block) free_.push_back(*block);
  blocks.clear();
  CHECK_LE(num_free(), num_blocks_);
}

}  // namespace skipper
