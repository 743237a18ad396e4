#include "kernels/cpu/word_transpose.h"

#include <algorithm>

namespace skipper::cpu {
namespace {

// Vectors of four words exist in the baseline of every 64-bit CPU: no choice of instruction set is needed.
typedef uint32_t FourWords __attribute__((vector_size(16)));
constexpr int64_t kBlock = 4;
// A cache line: rows whose distance is a power of two would drive each other out of the cache between visits.
constexpr int64_t kWordsOfLine = 16;

const std::byte* at(const WordMatrix& m, int64_t row, int64_t word) {
  return static_cast<const std::byte*>(m.words) + row * m.row_bytes + word * int64_t{sizeof(uint32_t)};
}

void transpose_block(const std::byte* source, int64_t row_bytes, uint32_t* target, int64_t target_stride) {
  FourWords r[kBlock];
  for (int64_t i = 0; i < kBlock; ++i) __builtin_memcpy(&r[i], source + i * row_bytes, sizeof(r[i]));
  const FourWords low01 = __builtin_shufflevector(r[0], r[1], 0, 4, 1, 5);
  const FourWords low23 = __builtin_shufflevector(r[2], r[3], 0, 4, 1, 5);
  const FourWords high01 = __builtin_shufflevector(r[0], r[1], 2, 6, 3, 7);
  const FourWords high23 = __builtin_shufflevector(r[2], r[3], 2, 6, 3, 7);
  const FourWords columns[kBlock] = {
      __builtin_shufflevector(low01, low23, 0, 1, 4, 5), __builtin_shufflevector(low01, low23, 2, 3, 6, 7),
      __builtin_shufflevector(high01, high23, 0, 1, 4, 5), __builtin_shufflevector(high01, high23, 2, 3, 6, 7)};
  for (int64_t i = 0; i < kBlock; ++i) __builtin_memcpy(target + i * target_stride, &columns[i], sizeof(columns[i]));
}

// Words [begin, end) one by one.
void transpose_words_singly(const WordMatrix& source, int64_t begin, int64_t end, uint32_t* target, int64_t target_stride) {
  for (int64_t word = begin; word < end; ++word) {
    for (int64_t row = 0; row < source.num_rows; ++row) {
      __builtin_memcpy(target + word * target_stride + row, at(source, row, word), sizeof(uint32_t));
    }
  }
}

// Words [begin, end), a multiple of four of them; the last four rows may overlap the four before.
void transpose_strip(const WordMatrix& source, int64_t begin, int64_t end, uint32_t* target, int64_t target_stride) {
  for (int64_t next = 0; next < source.num_rows; next += kBlock) {
    const int64_t row = std::min(next, source.num_rows - kBlock);
    for (int64_t word = begin; word < end; word += kBlock) {
      transpose_block(at(source, row, word), source.row_bytes, target + word * target_stride + row, target_stride);
    }
  }
}

}  // namespace

void transpose_words(const WordMatrix& source, uint32_t* target, int64_t target_stride) {
  const int64_t in_blocks = source.num_rows < kBlock ? 0 : source.num_words - source.num_words % kBlock;
  for (int64_t word = 0; word < in_blocks; word += kWordsOfLine) {
    transpose_strip(source, word, std::min(word + kWordsOfLine, in_blocks), target, target_stride);
  }
  transpose_words_singly(source, in_blocks, source.num_words, target, target_stride);
}

}  // namespace skipper::cpu
