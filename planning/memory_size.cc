#include "planning/memory_size.h"

#include <charconv>
#include <cmath>
#include <cstdio>

#include "base/error.h"

namespace skipper {
namespace {

constexpr double kMostBytes = 1e18;

[[noreturn]] void refuse(const std::string& text, const std::string& where) {
  throw InvalidRequest(where + ": '" + text + "' is no size of memory; write 2G, 512M, 1.5T or 24Gi", where);
}

// Of "", "K", "Mi", ...; 0 where there is none.
double unit_of(const std::string& suffix) {
  if (suffix.empty()) return 1.0;
  const size_t power = std::string("KMGT").find(suffix[0]);
  if (power == std::string::npos || suffix.size() > 2 || (suffix.size() == 2 && suffix[1] != 'i')) return 0.0;
  return std::pow(suffix.size() == 2 ? 1024.0 : 1000.0, static_cast<double>(power) + 1.0);
}

}  // namespace

size_t parse_memory_size(const std::string& text, const std::string& where) {
  double number = 0.0;
  const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const double unit = unit_of(std::string(rest, text.data() + text.size()));
  const double num_bytes = number * unit;
  if (error != std::errc() || unit == 0.0 || !(num_bytes >= 0.0) || num_bytes > kMostBytes) refuse(text, where);
  return static_cast<size_t>(num_bytes);
}

std::vector<size_t> parse_memory_sizes(const std::string& text, const std::string& where) {
  std::vector<size_t> sizes;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    sizes.push_back(parse_memory_size(text.substr(begin, end - begin), where));
    begin = end + 1;
  }
  return sizes;
}

std::string memory_text(size_t num_bytes) {
  constexpr double kMegabyte = 1e6, kGigabyte = 1e9;
  const auto bytes = static_cast<double>(num_bytes);
  char text[32];
  if (bytes < kGigabyte) {
    std::snprintf(text, sizeof(text), "%.1f MB", bytes / kMegabyte);
  } else {
    std::snprintf(text, sizeof(text), "%.2f GB", bytes / kGigabyte);
  }
  return text;
}

}  // namespace skipper
