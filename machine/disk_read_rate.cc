#include "machine/disk_read_rate.h"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>

#include "base/error.h"

namespace skipper {
namespace {

constexpr size_t kReadBytes = size_t{1} << 20;  // of the size of an expert
constexpr size_t kAlignment = 4096;
constexpr int kInFlight = 8;

std::shared_ptr<std::byte> aligned_pieces(size_t count) {
  void* memory = std::aligned_alloc(kAlignment, count * kReadBytes);
  if (memory == nullptr) throw ResourceExhausted("out of memory for the buffers of a disk measurement");
  return {static_cast<std::byte*>(memory), [](std::byte* begin) { std::free(begin); }};
}

}  // namespace

DiskReadRate::DiskReadRate(const std::filesystem::path& directory, size_t num_bytes)
    : directory_(directory), num_bytes_(num_bytes), readers_(kInFlight), buffer_(aligned_pieces(kInFlight)) {
  open_file();
  try {
    write_file();
  } catch (const Error&) {
    close(descriptor_);
    throw;
  }
}

DiskReadRate::~DiskReadRate() { close(descriptor_); }

// Without a name from the start, so that nothing is left behind however the process ends.
void DiskReadRate::open_file() {
  std::string path = (directory_ / "skipper_disk_XXXXXX").string();
  const int named = mkstemp(path.data());
  if (named < 0) {
    throw InvalidFile(directory_.string() + ": no file can be made there (" + std::strerror(errno) +
                      "); give --disk a directory that can be written");
  }
  descriptor_ = open(path.c_str(), O_RDWR | O_CLOEXEC | O_DIRECT);
  const int problem = errno;
  unlink(path.c_str());
  close(named);
  if (descriptor_ >= 0) return;
  throw InvalidFile(directory_.string() + ": files there cannot be read past the page cache (" + std::strerror(problem) +
                    "); give --disk a directory of a disk");
}

// Random bytes, which no disk compresses.
void DiskReadRate::write_file() {
  std::mt19937_64 random(1);
  for (size_t offset = 0; offset < kReadBytes; offset += sizeof(uint64_t)) {
    const uint64_t word = random();
    std::memcpy(buffer_.get() + offset, &word, sizeof(word));
  }
  for (size_t offset = 0; offset < num_bytes_; offset += kReadBytes) {
    std::memcpy(buffer_.get(), &offset, sizeof(offset));
    const ssize_t count = pwrite(descriptor_, buffer_.get(), kReadBytes, static_cast<off_t>(offset));
    if (count == static_cast<ssize_t>(kReadBytes)) continue;
    throw InvalidFile(directory_.string() + ": only " + std::to_string(offset) + " of " + std::to_string(num_bytes_) +
                      " bytes could be written (" + (count < 0 ? std::strerror(errno) : "disk full") +
                      "); make room, or give --disk another directory");
  }
  if (fsync(descriptor_) == 0) return;
  throw InvalidFile(directory_.string() + ": a file could not be written out (" + std::strerror(errno) + ")");
}

double DiskReadRate::measure_seconds() {
  const auto start = std::chrono::steady_clock::now();
  std::atomic<size_t> next{0};
  std::atomic<bool> complete{true};
  readers_.parallel_for(kInFlight, [&](int64_t reader) {
    std::byte* piece = buffer_.get() + static_cast<size_t>(reader) * kReadBytes;
    for (size_t offset = next.fetch_add(kReadBytes); offset < num_bytes_; offset = next.fetch_add(kReadBytes)) {
      const ssize_t count = pread(descriptor_, piece, kReadBytes, static_cast<off_t>(offset));
      if (count != static_cast<ssize_t>(kReadBytes)) complete = false;
    }
  });
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  if (!complete) throw InvalidFile(directory_.string() + ": a temporary file could not be read back; is the disk in order?");
  return elapsed.count();
}

}  // namespace skipper
