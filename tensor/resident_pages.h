// Pages of file mappings: how many this process holds, reading them in, and giving them back.
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

// Reads in all pages that hold a byte of a part of a read-only file mapping. Returns whether they could be read; no use of them
// waits for the disk afterwards, unless the system needs the memory for something else.
bool read_in_pages(const std::byte* begin, size_t num_bytes);

// Drops the pages that lie whole inside a read-only file mapping. A later read fetches them from the file again.
void release_whole_pages(const std::byte* begin, size_t num_bytes);

}  // namespace skipper
