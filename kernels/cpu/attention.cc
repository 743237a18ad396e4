#include "kernels/attention.h"

#include "kernels/cpu/attention_rows.h"

namespace skipper::cpu {
namespace {

// The keys and values of one head in one sequence.
struct PackedView {
  const float* k;
  const float* v;
  int64_t row_stride;

  [[gnu::always_inline]] KvSpan<float> span(int64_t position, int64_t end) const {
    return {k + position * row_stride, v + position * row_stride, row_stride, end - position};
  }
};

// All queries of one head in one sequence, kMaxAttentionRows at a time.
struct PackedHeadKernel {
  template <int kWidth>
  [[gnu::always_inline]] static void run(const AttentionRows& all, const PackedView& view) {
    for (int64_t begin = 0; begin < all.num_rows; begin += kMaxAttentionRows) {
      AttentionRows rows = all;
      rows.q += begin * all.row_stride;
      rows.out += begin * all.row_stride;
      rows.num_rows = std::min(kMaxAttentionRows, all.num_rows - begin);
      attend<kWidth>(rows, view);
    }
  }
};

void attend_within(const PackedAttentionInput& input, int64_t begin, int64_t end, Tensor& out) {
  const int64_t num_heads = input.q.dim(1), head_dim = input.q.dim(2);
  const int64_t row_stride = num_heads * head_dim, length = end - begin;
  float* scores = attention_scores(length);
  for (int64_t head = 0; head < num_heads; ++head) {
    const int64_t first = begin * row_stride + head * head_dim;
    const AttentionRows rows{.q = input.q.data<float>() + first,
                             .out = out.data<float>() + first,
                             .row_stride = row_stride,
                             .num_rows = length,
                             .head_dim = head_dim,
                             .num_positions = length,
                             .scale = input.scale,
                             .scores = scores};
    run_on_best_isa<PackedHeadKernel>(rows, PackedView{input.k.data<float>() + first, input.v.data<float>() + first, row_stride});
  }
}

}  // namespace

void packed_attention(const PackedAttentionInput& input, Tensor& out) {
  const int32_t* offsets = input.offsets.data<int32_t>();
  const int64_t num_sequences = input.offsets.dim(0) - 1;
  CHECK(offsets[0] == 0 && offsets[num_sequences] == input.q.dim(0)) << "packed_attention: offsets do not span the rows";
  for (int64_t s = 0; s < num_sequences; ++s) {
    CHECK_LE(offsets[s], offsets[s + 1]) << "packed_attention: offsets descend at sequence " << s;
    if (offsets[s] < offsets[s + 1]) attend_within(input, offsets[s], offsets[s + 1], out);
  }
}

}  // namespace skipper::cpu
