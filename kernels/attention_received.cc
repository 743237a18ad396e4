#include "kernels/attention_received.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/cpu/element_type.h"
#include "kernels/cpu/kv_panel.h"
#include "kernels/operand_checks.h"

namespace skipper {
namespace {

using cpu::kPanelPositions;

struct Readers {
  const PagedAttentionInput& input;
  const PagedKv& cache;
  const RowRange& rows;

  int64_t position(int64_t row) const { return input.positions.data<int32_t>()[row]; }
  int64_t num_positions() const { return position(rows.end - 1) + 1; }
  int64_t num_panels() const { return (num_positions() + kPanelPositions - 1) / kPanelPositions; }
  int64_t head_dim() const { return cache.shape.head_dim; }
  int64_t heads_per_group() const { return input.q.dim(1) / cache.shape.kv_heads; }
  const int32_t* block_table() const {
    return input.block_tables.row<int32_t>(input.sequence_index.data<int32_t>()[rows.begin]);
  }
};

// The keys of one head as [panel][D][16] floats, from panels of kernels/cpu/kv_panel.h.
template <typename T>
void unpack_keys(const Readers& readers, int64_t kv_head, std::vector<float>& keys) {
  constexpr int64_t kPerWord = cpu::kWordElements<T>;
  const PagedKv& cache = readers.cache;
  const int64_t panels_per_block = cache.k.dim(2), panel_size = cache.k.dim(3);
  keys.resize(static_cast<size_t>(readers.num_panels() * readers.head_dim() * kPanelPositions));
  float* out = keys.data();
  for (int64_t panel = 0; panel < readers.num_panels(); ++panel) {
    const int64_t block = readers.block_table()[panel / panels_per_block];
    const int64_t place = (block * cache.shape.kv_heads + kv_head) * panels_per_block + panel % panels_per_block;
    const T* source = cache.k.data<T>() + place * panel_size;
    for (int64_t d = 0; d < readers.head_dim(); ++d) {
      const T* word = source + d / kPerWord * kPanelPositions * kPerWord + d % kPerWord;
      for (int64_t i = 0; i < kPanelPositions; ++i) *out++ = static_cast<float>(word[i * kPerWord]);
    }
  }
}

// scores[p] = q · key of p. Positions after the last that was written hold anything.
void score_positions(const float* q, const std::vector<float>& keys, int64_t head_dim, std::vector<float>& scores) {
  const float* key = keys.data();
  for (size_t first = 0; first < scores.size(); first += kPanelPositions) {
    float sums[kPanelPositions] = {};
    for (int64_t d = 0; d < head_dim; ++d, key += kPanelPositions) {
      for (int64_t i = 0; i < kPanelPositions; ++i) sums[i] += q[d] * key[i];
    }
    std::copy_n(sums, kPanelPositions, scores.begin() + static_cast<int64_t>(first));
  }
}

// Of the positions that the query sees.
void softmax(std::span<float> scores, float scale) {
  const float largest = *std::ranges::max_element(scores);
  float sum = 0.0f;
  for (float& score : scores) sum += score = std::exp((score - largest) * scale);
  for (float& score : scores) score /= sum;
}

// What the queries of one group of heads give to each row.
template <typename T>
void add_weights_of_group(const Readers& readers, int64_t kv_head, std::span<float> given) {
  static thread_local std::vector<float> keys, scores;
  unpack_keys<T>(readers, kv_head, keys);
  scores.resize(static_cast<size_t>(readers.num_panels() * kPanelPositions));
  const int64_t heads = readers.heads_per_group(), head_dim = readers.head_dim();
  for (int64_t head = kv_head * heads; head < (kv_head + 1) * heads; ++head) {
    for (int64_t row = readers.rows.begin; row < readers.rows.end; ++row) {
      score_positions(readers.input.q.row<float>(row) + head * head_dim, keys, head_dim, scores);
      softmax({scores.data(), static_cast<size_t>(readers.position(row) + 1)}, readers.input.scale);
      for (int64_t read = readers.rows.begin; read <= row; ++read) {
        given[static_cast<size_t>(read - readers.rows.begin)] += scores[static_cast<size_t>(readers.position(read))];
      }
    }
  }
}

}  // namespace

void attention_received(const PagedAttentionInput& input, const PagedKv& cache, const RowRange& rows, std::span<float> received,
                        Stream& stream) {
  check_on_host("attention_received", {&input.q, &input.sequence_index, &input.positions, &input.block_tables, &cache.k});
  CHECK_EQ(static_cast<size_t>(rows.size()), received.size());
  if (rows.size() == 0) return;
  const Readers readers{input, cache, rows};
  const int64_t kv_heads = cache.shape.kv_heads;
  static thread_local std::vector<float> of_groups;  // [kv_heads][rows]
  of_groups.assign(static_cast<size_t>(kv_heads) * received.size(), 0.0f);
  const std::span<float> given(of_groups);
  cpu::with_floats(cache.k, [&]<typename T>(const T*) {
    stream.workers().parallel_for(kv_heads, [&](int64_t kv_head) {
      add_weights_of_group<T>(readers, kv_head, given.subspan(static_cast<size_t>(kv_head) * received.size(), received.size()));
    });
  });
  for (size_t i = 0; i < received.size(); ++i) {
    float sum = 0.0f;
    for (size_t group = 0; group < static_cast<size_t>(kv_heads); ++group) sum += given[group * received.size() + i];
    received[i] = sum / static_cast<float>(input.q.dim(1) * (rows.size() - static_cast<int64_t>(i)));
  }
}

}  // namespace skipper
