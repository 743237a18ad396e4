#include "frontend/request_id.h"

#include <random>

namespace skipper {
namespace {

bool is_safe(char c) {
  const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
  return letter || (c >= '0' && c <= '9') || std::string_view("-_.:").find(c) != std::string_view::npos;
}

}  // namespace

uint64_t random_bits() {
  std::random_device device;
  return (static_cast<uint64_t>(device()) << 32) | device();
}

std::string random_id(std::string_view prefix) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string id = std::string(prefix) + "-";
  for (int half = 0; half < 2; ++half) {
    uint64_t bits = random_bits();
    for (int i = 0; i < 16; ++i, bits >>= 4) id += kDigits[bits & 15];
  }
  return id;
}

std::string safe_request_id(std::string_view given) {
  constexpr size_t kMaxLength = 128;
  std::string id;
  for (const char c : given) {
    if (id.size() < kMaxLength && is_safe(c)) id += c;
  }
  return id.empty() ? random_id("req") : id;
}

}  // namespace skipper
