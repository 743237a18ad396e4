#include "quantization/output_directory.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <string>

#include "base/error.h"

namespace skipper {
namespace {

namespace fs = std::filesystem;

// "out/" and "a/../out" name the same as "out"; a trailing slash would hide the name.
fs::path named(const fs::path& path) {
  const fs::path normal = fs::absolute(path).lexically_normal();
  return normal.has_filename() ? normal : normal.parent_path();
}

void check_target(const fs::path& target) {
  std::error_code ignored;
  if (!fs::exists(fs::symlink_status(target, ignored))) return;
  if (fs::is_symlink(target, ignored)) throw Error(target.string() + ": is a symbolic link; name a new directory");
  if (!fs::is_directory(target, ignored)) throw Error(target.string() + ": exists and is no directory; name a new one");
  if (!fs::is_empty(target, ignored)) throw Error(target.string() + ": exists and is not empty; name a new directory");
}

std::string gigabytes(size_t num_bytes) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.3f GB", static_cast<double>(num_bytes) / 1e9);
  return text;
}

void flush(const fs::path& path) {
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  const bool flushed = descriptor >= 0 && fsync(descriptor) == 0;
  const int reason = errno;
  if (descriptor >= 0) close(descriptor);
  if (!flushed) throw Error(path.string() + ": cannot be flushed to the disk (" + std::strerror(reason) + ")");
}

}  // namespace

OutputDirectory::OutputDirectory(const fs::path& target) : target_(named(target)), partial_(target_) {
  partial_ += ".partial";
  check_target(target_);
  std::error_code error;
  if (!fs::create_directory(partial_, error)) {
    if (!error || error == std::errc::file_exists) {
      throw Error(partial_.string() + ": exists; another run writes it, or one was killed: then remove it");
    }
    throw Error(partial_.string() + ": cannot be made (" + error.message() + "); make its parent directory or name another one");
  }
}

OutputDirectory::~OutputDirectory() {
  std::error_code ignored;
  if (!committed_) fs::remove_all(partial_, ignored);
}

void OutputDirectory::require_space(size_t num_bytes) const {
  std::error_code error;
  const fs::space_info space = fs::space(partial_, error);
  if (error || space.available >= num_bytes) return;
  throw Error(target_.string() + ": needs " + gigabytes(num_bytes) + ", but its disk has " + gigabytes(space.available) +
              " free; free space or name a directory on another disk");
}

void OutputDirectory::commit() {
  for (const fs::directory_entry& entry : fs::directory_iterator(partial_)) flush(entry.path());
  flush(partial_);
  std::error_code error;
  fs::rename(partial_, target_, error);
  if (error) throw Error(target_.string() + ": cannot be named so (" + error.message() + "); it was made meanwhile");
  committed_ = true;
  flush(target_.parent_path());
}

}  // namespace skipper
