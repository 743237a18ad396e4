#include "tensor/resident_pages.h"

#include <glog/logging.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdint>
#include <fstream>
#include <sstream>
#include <string>

#include "base/error.h"

namespace skipper {
namespace {

// "7f12a000-7f12c000 r--p ..." → 0x7f12a000; nothing for the lines of counters below it.
bool parse_mapping_start(const std::string& line, uintptr_t* start) {
  const auto [end, status] = std::from_chars(line.data(), line.data() + line.size(), *start, 16);
  return status == std::errc() && end != line.data() + line.size() && *end == '-';
}

bool contains(std::span<const MemoryRange> ranges, uintptr_t address) {
  return std::any_of(ranges.begin(), ranges.end(), [address](const MemoryRange& range) {
    const auto begin = reinterpret_cast<uintptr_t>(range.begin);
    return address >= begin && address - begin < range.num_bytes;
  });
}

void touch_pages(uintptr_t first, uintptr_t last, uintptr_t page) {
  for (uintptr_t address = first; address < last; address += page) (void)*reinterpret_cast<const volatile std::byte*>(address);
}

}  // namespace

size_t resident_bytes_of(std::span<const MemoryRange> ranges) {
  std::ifstream smaps("/proc/self/smaps");
  if (!smaps) throw DeviceError("/proc/self/smaps: cannot be read; resident memory needs a mounted /proc");
  size_t kibibytes = 0;
  bool is_ours = false;
  for (std::string line; std::getline(smaps, line);) {
    if (uintptr_t start = 0; parse_mapping_start(line, &start)) {
      is_ours = contains(ranges, start);
    } else if (is_ours && line.starts_with("Rss:")) {
      size_t count = 0;
      std::istringstream(line.substr(4)) >> count;
      kibibytes += count;
    }
  }
  return kibibytes * 1024;
}

bool read_in_pages(const std::byte* begin, size_t num_bytes) {
  if (num_bytes == 0) return true;
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto address = reinterpret_cast<uintptr_t>(begin);
  const uintptr_t first = address / page * page, last = (address + num_bytes + page - 1) / page * page;
#ifdef MADV_POPULATE_READ
  // One call instead of one fault for every few pages, and an error where a fault would be a signal.
  if (madvise(reinterpret_cast<void*>(first), last - first, MADV_POPULATE_READ) == 0) return true;
  if (errno != EINVAL) return false;
#endif
  touch_pages(first, last, page);  // the system is older than the call
  return true;
}

void release_whole_pages(const std::byte* begin, size_t num_bytes) {
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto address = reinterpret_cast<uintptr_t>(begin);
  const uintptr_t first = (address + page - 1) / page * page, last = (address + num_bytes) / page * page;
  if (first >= last) return;
  PCHECK(madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED) == 0) << "madvise";
}

}  // namespace skipper
