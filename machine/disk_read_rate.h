// How fast a disk is read past the page cache: what experts that rest on it cost.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>

#include "base/thread_pool.h"

namespace skipper {

class DiskReadRate {
 public:
  // Writes a temporary file of `num_bytes` (a multiple of 1 MiB) in `directory`, which is gone with this object or its process.
  // Throws InvalidFile for a directory that cannot be written, has no room, or cannot be read past the page cache.
  DiskReadRate(const std::filesystem::path& directory, size_t num_bytes);
  ~DiskReadRate();
  DiskReadRate(const DiskReadRate&) = delete;
  DiskReadRate& operator=(const DiskReadRate&) = delete;

  // Reads all of it once, several pieces at a time. Returns seconds; throws InvalidFile when a read fails.
  double measure_seconds();
  size_t num_bytes() const { return num_bytes_; }

 private:
  void open_file();
  void write_file();

  std::filesystem::path directory_;
  size_t num_bytes_;
  int descriptor_ = -1;
  ThreadPool readers_;
  std::shared_ptr<std::byte> buffer_;  // a piece for each in flight, aligned as direct reads want it
};

}  // namespace skipper
