#include "model/model_fingerprint.h"

#include <bit>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iomanip>
#include <iterator>
#include <sstream>

#include "base/error.h"

namespace skipper {
namespace {

constexpr uint64_t kMaxHeaderBytes = uint64_t{1} << 28;

std::ifstream open_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw InvalidFile(path.string() + ": cannot be opened; expected a Hugging Face model directory");
  return file;
}

std::string whole_file(const std::filesystem::path& path) {
  std::ifstream file = open_file(path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::string safetensors_header(const std::filesystem::path& path) {
  static_assert(std::endian::native == std::endian::little, "the header length is little-endian");
  std::ifstream file = open_file(path);
  uint64_t length = 0;
  file.read(reinterpret_cast<char*>(&length), sizeof(length));
  if (!file || length > kMaxHeaderBytes) throw InvalidFile(path.string() + ": is no safetensors file; download it again");
  std::string header(length, '\0');
  file.read(header.data(), static_cast<std::streamsize>(length));
  if (!file) throw InvalidFile(path.string() + ": is shorter than its header says; download it again");
  return header;
}

uint64_t fnv1a(uint64_t hash, const std::string& bytes) {
  for (const char byte : bytes) {
    hash = (hash ^ static_cast<unsigned char>(byte)) * 0x100000001b3ull;
  }
  return hash;
}

}  // namespace

std::string model_fingerprint(const std::filesystem::path& directory) {
  const std::filesystem::path index = directory / "model.safetensors.index.json";
  uint64_t hash = fnv1a(0xcbf29ce484222325ull, whole_file(directory / "config.json"));
  hash = fnv1a(hash, std::string(1, '\0'));
  hash = fnv1a(hash, std::filesystem::exists(index) ? whole_file(index)
                                                    : safetensors_header(directory / "model.safetensors"));
  std::ostringstream text;
  text << std::hex << std::setw(16) << std::setfill('0') << hash;
  return text.str();
}

}  // namespace skipper
