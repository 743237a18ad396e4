#include "processor/exif_orientation.h"

#include <optional>

namespace skipper {
namespace {

constexpr uint32_t kOrientationTag = 0x0112;
constexpr uint32_t kTypeShort = 3;
constexpr uint32_t kTypeLong = 4;
constexpr size_t kEntryBytes = 12;

// Reads integers of either byte order; nothing past the end.
class TiffReader {
 public:
  explicit TiffReader(std::span<const uint8_t> bytes) : bytes_(bytes) {
    big_endian_ = bytes.size() >= 2 && bytes[0] == 'M' && bytes[1] == 'M';
  }

  std::optional<uint32_t> u16(size_t offset) const { return integer(offset, 2); }
  std::optional<uint32_t> u32(size_t offset) const { return integer(offset, 4); }

 private:
  std::optional<uint32_t> integer(size_t offset, size_t num_bytes) const {
    if (offset > bytes_.size() || bytes_.size() - offset < num_bytes) return std::nullopt;
    uint32_t value = 0;
    for (size_t i = 0; i < num_bytes; ++i) {
      value = value << 8 | bytes_[offset + (big_endian_ ? i : num_bytes - 1 - i)];
    }
    return value;
  }

  std::span<const uint8_t> bytes_;
  bool big_endian_ = false;
};

// The value of the directory entry at `offset`, if that is the orientation.
std::optional<uint32_t> orientation_entry(const TiffReader& tiff, size_t offset) {
  if (tiff.u16(offset) != kOrientationTag) return std::nullopt;
  const std::optional<uint32_t> type = tiff.u16(offset + 2);
  if (type == kTypeShort) return tiff.u16(offset + 8);
  if (type == kTypeLong) return tiff.u32(offset + 8);
  return std::nullopt;
}

}  // namespace

ExifOrientation exif_orientation(std::span<const uint8_t> bytes) {
  const TiffReader tiff(bytes);
  if (tiff.u16(2) != 42u) return ExifOrientation::kUpright;
  const size_t directory = tiff.u32(4).value_or(0);
  const size_t num_entries = tiff.u16(directory).value_or(0);
  for (size_t i = 0; i < num_entries; ++i) {
    const std::optional<uint32_t> value = orientation_entry(tiff, directory + 2 + i * kEntryBytes);
    if (value && *value >= 1 && *value <= 8) return static_cast<ExifOrientation>(*value);
  }
  return ExifOrientation::kUpright;
}

}  // namespace skipper
