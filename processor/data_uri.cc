#include "processor/data_uri.h"

#include <algorithm>
#include <array>
#include <optional>

#include "base/error.h"

namespace skipper {
namespace {

constexpr std::string_view kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
constexpr uint8_t kNoDigit = 0xff;

constexpr std::array<uint8_t, 256> digit_values() {
  std::array<uint8_t, 256> values = {};
  values.fill(kNoDigit);
  for (size_t i = 0; i < kAlphabet.size(); ++i) values[static_cast<uint8_t>(kAlphabet[i])] = static_cast<uint8_t>(i);
  return values;
}

constexpr std::array<uint8_t, 256> kDigitValues = digit_values();

// Schemes and media types are compared without regard to case (RFC 2045, RFC 3986).
bool starts_with_ignoring_case(std::string_view text, std::string_view prefix) {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; };
  return text.size() >= prefix.size() &&
         std::equal(prefix.begin(), prefix.end(), text.begin(), [&](char a, char b) { return a == lower(b); });
}

// What follows "data:image/...;base64,"; nothing when the head is another one.
std::optional<std::string_view> payload_of(std::string_view uri) {
  for (const std::string_view head : {"data:image/png;base64,", "data:image/jpeg;base64,", "data:image/jpg;base64,"}) {
    if (starts_with_ignoring_case(uri, head)) return uri.substr(head.size());
  }
  return std::nullopt;
}

// Nothing when a digit is foreign or the bits left over by the padding are not zero.
std::optional<std::vector<uint8_t>> decode_base64(std::string_view digits, size_t num_padding) {
  std::vector<uint8_t> bytes;
  bytes.reserve(digits.size() / 4 * 3);
  uint32_t pending = 0;
  int num_pending_bits = 0;
  for (const char c : digits.substr(0, digits.size() - num_padding)) {
    const uint8_t value = kDigitValues[static_cast<uint8_t>(c)];
    if (value == kNoDigit) return std::nullopt;
    pending = (pending << 6 | value) & 0xffff;
    num_pending_bits += 6;
    if (num_pending_bits < 8) continue;
    num_pending_bits -= 8;
    bytes.push_back(static_cast<uint8_t>(pending >> num_pending_bits));
  }
  if ((pending & ((1u << num_pending_bits) - 1)) != 0) return std::nullopt;
  return bytes;
}

}  // namespace

std::vector<uint8_t> decode_data_uri(std::string_view uri, size_t max_bytes, const std::string& param) {
  if (!starts_with_ignoring_case(uri, "data:")) throw InvalidRequest("only data: URIs are accepted", param);
  const std::optional<std::string_view> payload = payload_of(uri);
  if (!payload) throw InvalidRequest("data: URI must begin with data:image/png;base64, or data:image/jpeg;base64,", param);
  if (payload->empty()) throw InvalidRequest("data: URI holds no bytes", param);
  if (payload->size() % 4 != 0) throw InvalidRequest("base64 of the data: URI is not a multiple of 4 characters long", param);

  const size_t num_padding = payload->ends_with("==") ? 2 : payload->ends_with('=') ? 1 : 0;
  const size_t num_bytes = payload->size() / 4 * 3 - num_padding;
  if (num_bytes > max_bytes) {
    throw InvalidRequest("image file has " + std::to_string(num_bytes) + " bytes, more than the limit of " +
                             std::to_string(max_bytes),
                         param);
  }
  std::optional<std::vector<uint8_t>> bytes = decode_base64(*payload, num_padding);
  if (!bytes) throw InvalidRequest("base64 of the data: URI is malformed", param);
  return *std::move(bytes);
}

}  // namespace skipper
