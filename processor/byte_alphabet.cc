#include "processor/byte_alphabet.h"

#include <array>
#include <cstdint>

#include "processor/utf8.h"

namespace skipper {
namespace {

constexpr int kNumCharacters = 256 + 68;  // 68 bytes are not printable in Latin-1

bool stands_for_itself(int byte) {
  return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || (byte >= 0xAE && byte <= 0xFF);
}

// Code point → byte, −1 for none.
std::array<int, kNumCharacters> make_byte_of_character() {
  std::array<int, kNumCharacters> byte_of{};
  byte_of.fill(-1);
  int next_stand_in = 256;
  for (int byte = 0; byte < 256; ++byte) byte_of[stands_for_itself(byte) ? byte : next_stand_in++] = byte;
  return byte_of;
}

}  // namespace

std::optional<std::string> bytes_of_alphabet_text(std::string_view text) {
  static const std::array<int, kNumCharacters> kByteOfCharacter = make_byte_of_character();
  std::string bytes;
  for (size_t offset = 0; offset < text.size();) {
    const Utf8Unit unit = read_utf8(text, offset);
    const bool known = unit.status == Utf8Status::kComplete && unit.code_point < kNumCharacters &&
                       kByteOfCharacter[unit.code_point] >= 0;
    if (!known) return std::nullopt;
    bytes.push_back(static_cast<char>(kByteOfCharacter[unit.code_point]));
    offset += unit.length;
  }
  return bytes;
}

}  // namespace skipper
