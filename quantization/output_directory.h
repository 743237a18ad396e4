// A directory that appears under its name only when it is complete.
#pragma once

#include <cstddef>
#include <filesystem>

namespace skipper {

// Files are made in TARGET.partial; commit() gives it its name, and without commit() it is removed.
class OutputDirectory {
 public:
  // Throws Error naming the directory: a target that exists and is not an empty directory, TARGET.partial of another run, a
  // parent that is missing or not writable.
  explicit OutputDirectory(const std::filesystem::path& target);
  ~OutputDirectory();
  OutputDirectory(const OutputDirectory&) = delete;
  OutputDirectory& operator=(const OutputDirectory&) = delete;

  // Where to write.
  const std::filesystem::path& path() const { return partial_; }
  // Throws Error with both numbers when the disk has less than `num_bytes` free.
  void require_space(size_t num_bytes) const;
  // Flushes to the disk and renames. Throws Error.
  void commit();

 private:
  std::filesystem::path target_;
  std::filesystem::path partial_;
  bool committed_ = false;
};

}  // namespace skipper
