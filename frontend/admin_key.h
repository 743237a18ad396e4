// The key that every admin request must show.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace skipper {

// Immutable, thread-safe.
class AdminKey {
 public:
  // Printable ASCII without blanks.
  explicit AdminKey(std::string key);

  // The first line of a file. Throws InvalidFile when the file cannot be read, is empty, readable by every user of the host, or
  // holds what no HTTP header can carry.
  static AdminKey load(const std::filesystem::path& path);

  // Whether `authorization` is "Bearer KEY", in a time that does not tell how much of it is right.
  bool opens_for(std::string_view authorization) const;

 private:
  std::string key_;
};

}  // namespace skipper
