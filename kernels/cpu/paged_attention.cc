#include "kernels/paged_attention.h"

#include "kernels/cpu/attention_rows.h"
#include "kernels/cpu/element_type.h"

namespace skipper::cpu {
namespace {

static_assert(kKvPanelPositions == kPanelPositions);

// The panels of one key/value head in one sequence.
template <typename T>
struct PagedView {
  const T* k;  // block 0 at this head
  const T* v;
  const int32_t* block_table;
  int64_t panels_per_block;
  int64_t panel_stride;
  int64_t block_stride;

  [[gnu::always_inline]] const T* keys(int64_t panel) const { return k + offset(panel); }
  [[gnu::always_inline]] const T* values(int64_t panel) const { return v + offset(panel); }
  [[gnu::always_inline]] int64_t offset(int64_t panel) const {
    return block_table[panel / panels_per_block] * block_stride + panel % panels_per_block * panel_stride;
  }
};

// Queries of one sequence at consecutive positions, in consecutive rows.
struct QueryRun {
  int64_t first_row;
  int64_t num_tokens;
};

bool continues(const PagedAttentionInput& input, int64_t row) {
  const int32_t* sequence = input.sequence_index.data<int32_t>() + row;
  const int32_t* position = input.positions.data<int32_t>() + row;
  return sequence[0] == sequence[-1] && position[0] == position[-1] + 1;
}

// All queries in runs of at most `max_tokens`; the memory is the calling thread's, valid until its next call.
const std::vector<QueryRun>& query_runs(const PagedAttentionInput& input, int64_t max_tokens) {
  static thread_local std::vector<QueryRun> runs;
  runs.clear();
  for (int64_t row = 0; row < input.q.dim(0); ++row) {
    if (!runs.empty() && runs.back().num_tokens < max_tokens && continues(input, row)) {
      ++runs.back().num_tokens;
    } else {
      runs.push_back({row, 1});
    }
  }
  return runs;
}

// An index outside the tables or the cache would read foreign memory.
void check_blocks(const PagedAttentionInput& input, const PagedKvShape& cache, const QueryRun& run) {
  const int64_t last_row = run.first_row + run.num_tokens - 1;
  const int32_t sequence = input.sequence_index.data<int32_t>()[last_row];
  const int32_t first = input.positions.data<int32_t>()[run.first_row], last = input.positions.data<int32_t>()[last_row];
  CHECK(sequence >= 0 && sequence < input.block_tables.dim(0)) << "paged_attention: sequence " << sequence;
  CHECK(first >= 0 && last < input.block_tables.dim(1) * cache.block_size) << "paged_attention: position " << last;
  const int32_t* table = input.block_tables.row<int32_t>(sequence);
  for (int64_t i = 0; i <= last / cache.block_size; ++i) {
    CHECK(table[i] >= 0 && table[i] < cache.num_blocks) << "paged_attention: block " << table[i] << " of " << cache.num_blocks;
  }
}

template <typename T>
PagedView<T> view_of(const PagedKv& cache, const int32_t* block_table, int64_t kv_head) {
  const int64_t panels_per_block = cache.k.dim(2), panel_stride = cache.k.dim(3);
  const int64_t head_stride = panels_per_block * panel_stride;
  return {cache.k.data<T>() + kv_head * head_stride, cache.v.data<T>() + kv_head * head_stride, block_table, panels_per_block,
          panel_stride, cache.shape.kv_heads * head_stride};
}

// The query heads that share one key/value head, for all tokens of a run.
template <typename T>
void attend_run(const PagedAttentionInput& input, const PagedKv& cache, const QueryRun& run, int64_t kv_head, Tensor& out) {
  const int64_t heads_per_group = input.q.dim(1) / cache.shape.kv_heads, head_dim = cache.shape.head_dim;
  const int64_t first_head = kv_head * heads_per_group * head_dim;
  const AttentionRows rows{.q = input.q.row<float>(run.first_row) + first_head,
                           .out = out.row<float>(run.first_row) + first_head,
                           .token_stride = input.q.row_elements(),
                           .num_tokens = run.num_tokens,
                           .num_heads = heads_per_group,
                           .head_dim = head_dim,
                           .first_limit = int64_t{input.positions.data<int32_t>()[run.first_row]} + 1,
                           .limit_step = 1,
                           .scale = input.scale};
  const int32_t* table = input.block_tables.row<int32_t>(input.sequence_index.data<int32_t>()[run.first_row]);
  attend<T>(rows, view_of<T>(cache, table, kv_head));
}

// What store_kv writes.
struct KvTokens {
  const Tensor& k;
  const Tensor& v;
  const Tensor& slots;
};

// Where head `head` of token t goes.
template <typename T>
KvRow<T> row_of(const KvTokens& tokens, int64_t t, int64_t head, PagedKv& cache) {
  const PagedKvShape& shape = cache.shape;
  const int64_t slot = tokens.slots.data<int32_t>()[t], block = slot / shape.block_size, position = slot % shape.block_size;
  const int64_t panel = (block * shape.kv_heads + head) * cache.k.dim(2) + position / kPanelPositions;
  const int64_t source = (t * shape.kv_heads + head) * shape.head_dim, target = panel * cache.k.dim(3);
  return {tokens.k.data<float>() + source, tokens.v.data<float>() + source, shape.head_dim,
          cache.k.data<T>() + target,      cache.v.data<T>() + target,      position % kPanelPositions};
}

}  // namespace

void store_kv(const Tensor& k, const Tensor& v, const Tensor& slots, PagedKv& cache, ThreadPool& workers) {
  constexpr int64_t kGrain = 64;
  const int64_t num_tokens = slots.dim(0), num_slots = cache.shape.num_blocks * cache.shape.block_size;
  for (const int32_t slot : slots.span<int32_t>()) {
    CHECK(slot >= 0 && slot < num_slots) << "store_kv: slot " << slot << " of " << num_slots;
  }
  with_floats(cache.k, [&]<typename T>(const T*) {
    const auto write = kv_writer<T>();
    // Head by head, because neighbouring tokens of one head share cache lines.
    workers.parallel_ranges(num_tokens * cache.shape.kv_heads, kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) write(row_of<T>({k, v, slots}, i % num_tokens, i / num_tokens, cache));
    });
  });
}

void paged_attention(const PagedAttentionInput& input, const PagedKv& cache, Tensor& out, ThreadPool& workers) {
  const int64_t heads_per_group = input.q.dim(1) / cache.shape.kv_heads;
  const std::vector<QueryRun>& runs = query_runs(input, std::max<int64_t>(1, kRowsOfTask / heads_per_group));
  for (const QueryRun& run : runs) check_blocks(input, cache.shape, run);
  const auto num_runs = static_cast<int64_t>(runs.size());
  with_floats(cache.k, [&]<typename T>(const T*) {
    // Head by head, whose keys and values stay in the cache; the late positions of a prompt, which take longest, first.
    workers.parallel_for(num_runs * cache.shape.kv_heads, [&](int64_t task) {
      attend_run<T>(input, cache, runs[static_cast<size_t>(num_runs - 1 - task % num_runs)], task / num_runs, out);
    });
  });
}

}  // namespace skipper::cpu
