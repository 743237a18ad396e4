#include "bench/file_read_rate.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <string>

#include "base/error.h"
#include "tensor/device_runtime.h"

namespace skipper {
namespace {

// Stays in the second-level cache, and is long enough for a system call to cost nothing.
constexpr size_t kPieceBytes = size_t{512} << 10;

std::byte* small_buffer() {
  thread_local std::vector<std::byte> buffer(kPieceBytes);
  return buffer.data();
}

}  // namespace

FileReadRate::FileReadRate(const std::filesystem::path& directory, ThreadPool& workers) : workers_(workers) {
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    if (entry.path().extension() == ".safetensors") open_file(entry.path());
  }
}

FileReadRate::~FileReadRate() {
  for (const int descriptor : descriptors_) close(descriptor);
}

void FileReadRate::open_file(const std::filesystem::path& path) {
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) {
    throw InvalidFile(path.string() + ": cannot be opened (" + std::strerror(errno) + "); check its permissions");
  }
  descriptors_.push_back(descriptor);
  const size_t file_bytes = std::filesystem::file_size(path);
  for (size_t offset = 0; offset < file_bytes; offset += kPieceBytes) {
    const size_t num_bytes = std::min(kPieceBytes, file_bytes - offset);
    pieces_.push_back({descriptor, offset, num_bytes, num_bytes_});
    num_bytes_ += num_bytes;
  }
}

double FileReadRate::measure_seconds(ReadTarget target) {
  const auto start = std::chrono::steady_clock::now();
  std::shared_ptr<std::byte> fresh;
  if (target == ReadTarget::kFreshMemory) fresh = allocate(num_bytes_, Device::host());
  std::atomic<bool> complete{true};
  workers_.parallel_for(static_cast<int64_t>(pieces_.size()), [&](int64_t index) {
    const Piece& piece = pieces_[static_cast<size_t>(index)];
    std::byte* place = fresh ? fresh.get() + piece.place : small_buffer();
    const ssize_t count = pread(piece.descriptor, place, piece.num_bytes, static_cast<off_t>(piece.offset));
    if (count != static_cast<ssize_t>(piece.num_bytes)) complete = false;
  });
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  if (!complete) throw InvalidFile("a file of the checkpoint could not be read to its end; is somebody writing it?");
  return elapsed.count();
}

}  // namespace skipper
