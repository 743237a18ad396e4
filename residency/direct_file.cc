#include "residency/direct_file.h"

#include <fcntl.h>
#include <glog/logging.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>

#include "base/error.h"

namespace skipper {
namespace {

int open_for_reading(const std::filesystem::path& path, int further_flags) {
  return ::open(path.c_str(), O_RDONLY | O_CLOEXEC | further_flags);
}

[[noreturn]] void fail(const std::filesystem::path& path, int error) {
  throw InvalidFile(path.string() + ": cannot be opened: " + std::strerror(error) + "; check path and permissions");
}

}  // namespace

std::shared_ptr<std::byte> allocate_for_direct_reads(size_t num_bytes) {
  const size_t size = std::max(num_bytes, kDirectAlignment);
  void* memory = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    throw DeviceError("no memory for " + std::to_string(num_bytes) + " bytes of experts from disk; lower residency.cache_mb");
  }
  return {static_cast<std::byte*>(memory), [size](std::byte* pages) { ::munmap(pages, size); }};
}

DirectFile::DirectFile(const std::filesystem::path& path) : path_(path), descriptor_(open_for_reading(path, O_DIRECT)) {
  // The first page is read as well: some file systems open what they then refuse to read.
  if (descriptor_ < 0 || !can_read_directly()) open_buffered();
  struct stat status {};
  if (::fstat(descriptor_, &status) != 0) fail(path, errno);
  num_bytes_ = static_cast<uint64_t>(status.st_size);
}

DirectFile::~DirectFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

bool DirectFile::can_read_directly() const {
  const std::shared_ptr<std::byte> page = allocate_for_direct_reads(kDirectAlignment);
  return ::pread(descriptor_, page.get(), kDirectAlignment, 0) >= 0 || errno != EINVAL;
}

void DirectFile::open_buffered() {
  if (descriptor_ >= 0) ::close(descriptor_);
  descriptor_ = open_for_reading(path_, 0);
  if (descriptor_ < 0) fail(path_, errno);
  bypasses_page_cache_ = false;
  LOG(WARNING) << path_.string() << ": its file system refuses direct reads; read through the page cache, which needs memory too";
}

}  // namespace skipper
