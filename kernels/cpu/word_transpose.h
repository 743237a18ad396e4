// Transposes a matrix of 32-bit words: what packing weights and interleaving activation rows both come down to.
#pragma once

#include <cstddef>
#include <cstdint>

namespace skipper::cpu {

struct WordMatrix {
  const void* words = nullptr;  // need not be aligned
  int64_t num_rows = 0;
  int64_t num_words = 0;  // of a row
  int64_t row_bytes = 0;  // between rows
};

// target[word · target_stride + row] = word of row. Cheaper than one store per word from four rows on.
void transpose_words(const WordMatrix& source, uint32_t* target, int64_t target_stride);

}  // namespace skipper::cpu
