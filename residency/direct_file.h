// A file for large reads that go past the page cache, so that what is read once does not push out what is used often.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>

namespace skipper {

// What O_DIRECT asks of offsets, sizes and memory alike: a multiple of every block size in use.
inline constexpr size_t kDirectAlignment = 4096;

inline constexpr size_t round_up_to_direct(size_t num_bytes) {
  return (num_bytes + kDirectAlignment - 1) / kDirectAlignment * kDirectAlignment;
}

// Memory for direct reads; pages take no room until they are touched. Throws DeviceError where there is none.
std::shared_ptr<std::byte> allocate_for_direct_reads(size_t num_bytes);

// Open for reading. Thread-safe.
class DirectFile {
 public:
  // A file system that refuses O_DIRECT is read through the page cache, and a warning says so. Throws InvalidFile.
  explicit DirectFile(const std::filesystem::path& path);
  ~DirectFile();
  DirectFile(const DirectFile&) = delete;
  DirectFile& operator=(const DirectFile&) = delete;

  const std::filesystem::path& path() const { return path_; }
  int descriptor() const { return descriptor_; }
  uint64_t num_bytes() const { return num_bytes_; }
  bool bypasses_page_cache() const { return bypasses_page_cache_; }

 private:
  bool can_read_directly() const;
  void open_buffered();

  std::filesystem::path path_;
  int descriptor_ = -1;
  uint64_t num_bytes_ = 0;
  bool bypasses_page_cache_ = true;
};

}  // namespace skipper
