// Pages of file mappings: how many this process holds, and giving them back.
#pragma once

#include <cstddef>
#include <span>

namespace skipper {

struct MemoryRange {
  const std::byte* begin = nullptr;
  size_t num_bytes = 0;
};

// Bytes resident in this process of mappings that begin inside one of `ranges` (/proc/self/smaps); page granularity.
// Throws DeviceError when /proc is not there.
size_t resident_bytes_of(std::span<const MemoryRange> ranges);

// Drops the pages that lie whole inside a read-only file mapping. A later read fetches them from the file again.
void release_whole_pages(const std::byte* begin, size_t num_bytes);

}  // namespace skipper
