// How much attention the tokens of a prompt get from those that read them.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/paged_attention.h"

namespace skipper {

// Rows [begin, end) of a step.
struct RowRange {
  int64_t begin = 0, end = 0;

  int64_t size() const { return end - begin; }
};

// received[i] = the mean softmax weight, over all heads and over the queries of row begin + i and after, on the position of row
// begin + i. The rows are of one sequence with ascending positions. In FP32 on the cache's keys; sums run over queries in
// ascending order, head after head, so the result depends on these rows alone and on no number of threads. It does depend on
// how many queries the step has: a token's later readers are not known yet.
// Twice the products of attention itself, in plain loops: for rules that ask for it, not for every step.
void attention_received(const PagedAttentionInput& input, const PagedKv& cache, const RowRange& rows, std::span<float> received,
                        Stream& stream);

}  // namespace skipper
