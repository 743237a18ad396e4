#include "frontend/admin_key.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <utility>

#include "base/error.h"

namespace skipper {
namespace {

constexpr std::string_view kScheme = "Bearer ";
constexpr size_t kMaxKeyBytes = 1024;

[[noreturn]] void refuse(const std::filesystem::path& path, const std::string& problem) {
  throw InvalidFile("admin key file " + path.string() + ": " + problem);
}

void check_access(const std::filesystem::path& path) {
  struct stat info {};
  if (stat(path.c_str(), &info) != 0) {
    refuse(path, std::string(std::strerror(errno)) + "; write a secret into it and chmod 600 it");
  }
  if ((info.st_mode & S_IROTH) != 0) {
    refuse(path, "every user of this host can read it; run: chmod 600 " + path.string());
  }
}

bool is_key_character(char c) { return c > ' ' && c <= '~'; }

}  // namespace

AdminKey::AdminKey(std::string key) : key_(std::move(key)) {}

AdminKey AdminKey::load(const std::filesystem::path& path) {
  check_access(path);
  std::ifstream file(path);
  std::string key(kMaxKeyBytes + 1, '\0');
  file.read(key.data(), static_cast<std::streamsize>(key.size()));
  if (file.bad() || !file.eof()) {
    refuse(path, "cannot be read, or has more than " + std::to_string(kMaxKeyBytes) + " bytes; it must hold one line, the key");
  }
  key.resize(static_cast<size_t>(file.gcount()));
  key.resize(std::min(key.size(), key.find_first_of("\r\n")));
  if (key.empty()) refuse(path, "is empty; write a secret into its first line");
  if (!std::ranges::all_of(key, is_key_character)) {
    refuse(path, "the key has blanks or characters beyond ASCII; use letters and digits");
  }
  return AdminKey(std::move(key));
}

bool AdminKey::opens_for(std::string_view authorization) const {
  if (!authorization.starts_with(kScheme)) return false;
  const std::string_view shown = authorization.substr(kScheme.size());
  unsigned difference = shown.size() == key_.size() ? 0 : 1;
  for (size_t i = 0; i < shown.size(); ++i) {
    difference |= static_cast<unsigned char>(shown[i]) ^ static_cast<unsigned char>(key_[i % key_.size()]);
  }
  return difference == 0;
}

}  // namespace skipper
