#include "kernels/paged_attention.h"

#include "kernels/cpu/attention_rows.h"
#include "kernels/cpu/element_type.h"

namespace skipper::cpu {
namespace {

// The keys and values of one key/value head in one sequence; a span ends with its block.
template <typename T>
struct PagedView {
  const T* k;  // row 0 of block 0 at this head
  const T* v;
  const int32_t* block_table;
  int64_t block_size;
  int64_t row_stride;

  [[gnu::always_inline]] KvSpan<T> span(int64_t position, int64_t end) const {
    const int64_t row = position % block_size;
    const int64_t first = (block_table[position / block_size] * block_size + row) * row_stride;
    return {k + first, v + first, row_stride, std::min(block_size - row, end - position)};
  }
};

// The query heads that share one key/value head, kMaxAttentionRows at a time.
struct PagedGroupKernel {
  template <int kWidth, typename T>
  [[gnu::always_inline]] static void run(const AttentionRows& group, const PagedView<T>& view) {
    for (int64_t begin = 0; begin < group.num_rows; begin += kMaxAttentionRows) {
      AttentionRows rows = group;
      rows.q += begin * group.row_stride;
      rows.out += begin * group.row_stride;
      rows.num_rows = std::min(kMaxAttentionRows, group.num_rows - begin);
      attend<kWidth>(rows, view);
    }
  }
};

// The blocks of query t, checked: an index outside the tables or the cache would read foreign memory.
const int32_t* checked_block_table(const PagedAttentionInput& input, const PagedKv& cache, int64_t t) {
  const int32_t sequence = input.sequence_index.data<int32_t>()[t], position = input.positions.data<int32_t>()[t];
  const int64_t block_size = cache.k.dim(1), max_blocks = input.block_tables.dim(1);
  CHECK(sequence >= 0 && sequence < input.block_tables.dim(0)) << "paged_attention: sequence " << sequence;
  CHECK(position >= 0 && position < max_blocks * block_size) << "paged_attention: position " << position;
  const int32_t* table = input.block_tables.row<int32_t>(sequence);
  for (int64_t i = 0; i <= position / block_size; ++i) {
    CHECK(table[i] >= 0 && table[i] < cache.k.dim(0)) << "paged_attention: block " << table[i] << " of " << cache.k.dim(0);
  }
  return table;
}

template <typename T>
void attend_query(const PagedAttentionInput& input, const PagedKv& cache, int64_t t, Tensor& out) {
  const int32_t* block_table = checked_block_table(input, cache, t);
  const int64_t num_groups = cache.k.dim(2), head_dim = cache.k.dim(3);
  const int64_t num_positions = int64_t{input.positions.data<int32_t>()[t]} + 1;
  AttentionRows rows{.q = input.q.row<float>(t),
                     .out = out.row<float>(t),
                     .row_stride = head_dim,
                     .num_rows = input.q.dim(1) / num_groups,
                     .head_dim = head_dim,
                     .num_positions = num_positions,
                     .scale = input.scale,
                     .scores = attention_scores(num_positions)};
  PagedView<T> view{cache.k.data<T>(), cache.v.data<T>(), block_table, cache.k.dim(1), num_groups * head_dim};
  for (int64_t group = 0; group < num_groups; ++group) {
    run_on_best_isa<PagedGroupKernel>(rows, view);
    rows.q += rows.num_rows * head_dim;
    rows.out += rows.num_rows * head_dim;
    view.k += head_dim;
    view.v += head_dim;
  }
}

template <typename T>
void store_rows(const Tensor& rows, const Tensor& slots, Tensor& cache) {
  const int64_t num_slots = cache.dim(0) * cache.dim(1), row_size = cache.dim(2) * cache.dim(3);
  for (int64_t t = 0; t < slots.dim(0); ++t) {
    const int32_t slot = slots.data<int32_t>()[t];
    CHECK(slot >= 0 && slot < num_slots) << "store_kv: slot " << slot << " of " << num_slots;
    const float* source = rows.row<float>(t);
    T* target = cache.data<T>() + slot * row_size;
    for (int64_t i = 0; i < row_size; ++i) target[i] = static_cast<T>(source[i]);
  }
}

}  // namespace

void store_kv(const Tensor& k, const Tensor& v, const Tensor& slots, PagedKv& cache) {
  with_floats(cache.k, [&]<typename T>(const T*) {
    store_rows<T>(k, slots, cache.k);
    store_rows<T>(v, slots, cache.v);
  });
}

void paged_attention(const PagedAttentionInput& input, const PagedKv& cache, Tensor& out) {
  with_floats(cache.k, [&]<typename T>(const T*) {
    for (int64_t t = 0; t < input.q.dim(0); ++t) attend_query<T>(input, cache, t, out);
  });
}

}  // namespace skipper::cpu
