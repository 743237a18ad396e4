// Reads the files of fixtures/images, which tools/make_image_fixtures.py writes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

namespace skipper {

inline std::filesystem::path image_fixture_path(const std::string& name) {
  return std::filesystem::path(SKIPPER_SOURCE_DIR) / "tests/processor/fixtures/images" / name;
}

inline std::vector<uint8_t> read_image_fixture(const std::string& name) {
  std::ifstream file(image_fixture_path(name), std::ios::binary);
  if (!file) throw std::runtime_error("no fixture " + name);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

}  // namespace skipper
