// How fast threads read the files of a checkpoint that the page cache holds: what loading is measured against.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <vector>

#include "base/thread_pool.h"

namespace skipper {

// Where the bytes read go: over each other in one small buffer per thread, or into memory that the process has not touched
// before, which the system has to clear first: the bound of a load that copies.
enum class ReadTarget : uint8_t { kSmallBuffers, kFreshMemory };

class FileReadRate {
 public:
  // All *.safetensors files of `directory`. Throws InvalidFile naming the one that cannot be opened.
  FileReadRate(const std::filesystem::path& directory, ThreadPool& workers);
  ~FileReadRate();
  FileReadRate(const FileReadRate&) = delete;
  FileReadRate& operator=(const FileReadRate&) = delete;

  // Reads everything once. Returns seconds; throws InvalidFile when a read fails.
  double measure_seconds(ReadTarget target);
  size_t num_bytes() const { return num_bytes_; }

 private:
  struct Piece {
    int descriptor;
    size_t offset;
    size_t num_bytes;
    size_t place;  // in fresh memory
  };
  void open_file(const std::filesystem::path& path);

  ThreadPool& workers_;
  std::vector<int> descriptors_;
  std::vector<Piece> pieces_;
  size_t num_bytes_ = 0;
};

}  // namespace skipper
