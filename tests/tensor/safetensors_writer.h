// Writes small safetensors files for tests, sound and broken ones, into a directory of their own.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>

#include "base/error.h"

namespace skipper {

// A fresh directory that is removed with its test.
class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string pattern = (std::filesystem::temp_directory_path() / "skipper_test_XXXXXX").string();
    path_ = mkdtemp(pattern.data());
  }
  ~TemporaryDirectory() { std::filesystem::remove_all(path_); }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;

  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

inline std::filesystem::path write_file(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
  return path;
}

inline std::string little_endian(uint64_t value) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes.push_back(static_cast<char>(value >> (8 * i)));
  return bytes;
}

// Length, header padded with spaces to a multiple of 8, data.
inline std::string safetensors_bytes(std::string header, const std::string& data) {
  while (header.size() % 8 != 0) header.push_back(' ');
  return little_endian(header.size()) + header + data;
}

// The message of the InvalidFile that `action` throws; checks that it is one line.
template <typename Action>
std::string invalid_file_message(Action&& action) {
  try {
    action();
  } catch (const InvalidFile& error) {
    const std::string message = error.what();
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    return message;
  }
  ADD_FAILURE() << "expected InvalidFile";
  return "";
}

}  // namespace skipper
