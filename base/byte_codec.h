// Length-checked encoding of plain values to bytes and back, for messages between ranks of one build.
#pragma once

#include <cstddef>
#include <cstring>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "base/error.h"

namespace skipper {

// Appends values to a byte vector in the machine's byte order: all ranks of a job run the same binary.
class ByteWriter {
 public:
  explicit ByteWriter(std::vector<std::byte>& out) : out_(out) {}

  template <typename T>
    requires std::is_trivially_copyable_v<T>
  void value(const T& v) {
    append(&v, sizeof(T));
  }
  template <typename T>
    requires std::is_trivially_copyable_v<T>
  void values(std::span<const T> v) {
    value<uint64_t>(v.size());
    append(v.data(), v.size_bytes());
  }
  template <typename T>
  void values(const std::vector<T>& v) {
    values(std::span<const T>(v));
  }
  void text(const std::string& v) { values(std::span<const char>(v.data(), v.size())); }

 private:
  void append(const void* data, size_t num_bytes) {
    if (num_bytes == 0) return;
    const size_t offset = out_.size();
    out_.resize(offset + num_bytes);
    std::memcpy(out_.data() + offset, data, num_bytes);
  }

  std::vector<std::byte>& out_;
};

// Reads what a ByteWriter wrote. Throws CommError naming `what` when the bytes end early or are left over.
class ByteReader {
 public:
  ByteReader(std::span<const std::byte> bytes, const char* what) : bytes_(bytes), what_(what) {}

  template <typename T>
    requires std::is_trivially_copyable_v<T>
  T value() {
    T v;
    std::memcpy(&v, take(sizeof(T)), sizeof(T));
    return v;
  }
  template <typename T>
    requires std::is_trivially_copyable_v<T>
  std::vector<T> values() {
    const auto count = value<uint64_t>();
    if (count > bytes_.size() / sizeof(T)) fail("a list is longer than the message");
    std::vector<T> v(count);
    if (count > 0) std::memcpy(v.data(), take(count * sizeof(T)), count * sizeof(T));
    return v;
  }
  std::string text() {
    const std::vector<char> v = values<char>();
    return {v.begin(), v.end()};
  }
  // The number of elements that follow, each at least `min_bytes` long: bounds what a broken count can allocate.
  size_t count(size_t min_bytes) {
    const auto count = value<uint64_t>();
    if (count > bytes_.size() / min_bytes) fail("a list is longer than the message");
    return count;
  }
  void expect_end() const {
    if (!bytes_.empty()) fail(std::to_string(bytes_.size()) + " bytes are left over");
  }

 private:
  const std::byte* take(size_t num_bytes) {
    if (num_bytes > bytes_.size()) fail("the message ends early");
    const std::byte* data = bytes_.data();
    bytes_ = bytes_.subspan(num_bytes);
    return data;
  }
  [[noreturn]] void fail(const std::string& problem) const {
    throw CommError(std::string("malformed ") + what_ + ": " + problem + "; do all ranks run the same build?");
  }

  std::span<const std::byte> bytes_;
  const char* what_;
};

}  // namespace skipper
