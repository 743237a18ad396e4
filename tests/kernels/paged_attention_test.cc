#include "kernels/paged_attention.h"

#include <algorithm>
#include <numeric>

#include "tests/kernels/random_tensors.h"

namespace skipper {
namespace {

struct Layout {
  int64_t heads, kv_heads, head_size, block_size;
  DType cache_dtype;
  double tolerance;
};

// Sequences of given lengths whose blocks lie scattered over one cache.
class PagedAttentionTest : public testing::TestWithParam<Layout> {
 protected:
  static constexpr int64_t kMaxLength = 70;

  PagedAttentionTest() {
    const Layout& layout = GetParam();
    max_blocks_ = (kMaxLength + layout.block_size - 1) / layout.block_size;
    const Shape shape{kNumSequences * max_blocks_, layout.block_size, layout.kv_heads, layout.head_size};
    cache_ = {Tensor::zeros(shape, layout.cache_dtype), Tensor::zeros(shape, layout.cache_dtype)};
    std::vector<int32_t> blocks(static_cast<size_t>(shape[0]));
    std::iota(blocks.begin(), blocks.end(), 0);
    std::shuffle(blocks.begin(), blocks.end(), std::mt19937(1));
    block_tables_ = index_tensor(blocks).reshaped({kNumSequences, max_blocks_});
    for (int32_t s = 0; s < kNumSequences; ++s) fill_sequence(s);
  }

  void fill_sequence(int32_t sequence) {
    const Shape rows{kMaxLength, GetParam().kv_heads, GetParam().head_size};
    keys_.push_back(random_tensor(rows, DType::kF32, 10 + static_cast<uint32_t>(sequence)));
    values_.push_back(random_tensor(rows, DType::kF32, 20 + static_cast<uint32_t>(sequence)));
    std::vector<int32_t> slots;
    for (int32_t p = 0; p < kMaxLength; ++p) slots.push_back(slot_of(sequence, p));
    store_kv(keys_.back(), values_.back(), index_tensor(slots), cache_, stream_);
  }

  int32_t slot_of(int32_t sequence, int32_t position) const {
    const auto block_size = static_cast<int32_t>(GetParam().block_size);
    return block_tables_.row<int32_t>(sequence)[position / block_size] * block_size + position % block_size;
  }

  Tensor random_queries(int64_t count, uint32_t seed) const {
    return random_tensor({count, GetParam().heads, GetParam().head_size}, DType::kF32, seed);
  }

  Tensor attend(const Tensor& q, const std::vector<int32_t>& sequences, const std::vector<int32_t>& positions) {
    Tensor out = Tensor::empty(q.shape(), DType::kF32);
    paged_attention({q, index_tensor(sequences), index_tensor(positions), block_tables_, scale()}, cache_, out, stream_);
    return out;
  }

  float scale() const { return 1.0f / std::sqrt(static_cast<float>(GetParam().head_size)); }

  // From the definition, over the rounded rows of one sequence. q [heads, D].
  std::vector<double> expected(const Tensor& q, int32_t sequence, int32_t position) const {
    const Layout& layout = GetParam();
    std::vector<double> out(static_cast<size_t>(layout.heads * layout.head_size));
    for (int64_t h = 0; h < layout.heads; ++h) {
      const int64_t group = h / (layout.heads / layout.kv_heads);
      double* target = out.data() + h * layout.head_size;
      double total = 0;
      for (int32_t p = 0; p <= position; ++p) {
        double dot = 0;
        for (int64_t d = 0; d < layout.head_size; ++d) {
          dot += double{q.data<float>()[h * layout.head_size + d]} * rounded(keys_[static_cast<size_t>(sequence)], p, group, d);
        }
        const double weight = std::exp(dot * double{scale()});
        total += weight;
        for (int64_t d = 0; d < layout.head_size; ++d)
          target[d] += weight * rounded(values_[static_cast<size_t>(sequence)], p, group, d);
      }
      for (int64_t d = 0; d < layout.head_size; ++d) target[d] /= total;
    }
    return out;
  }

  double rounded(const Tensor& rows, int64_t position, int64_t group, int64_t d) const {
    const float value = rows.row<float>(position)[group * GetParam().head_size + d];
    return GetParam().cache_dtype == DType::kBF16 ? double{static_cast<float>(bf16(value))} : double{value};
  }

  static constexpr int32_t kNumSequences = 3;
  int64_t max_blocks_ = 0;
  PagedKv cache_;
  Tensor block_tables_;
  std::vector<Tensor> keys_, values_;
  Stream stream_;
};

TEST_P(PagedAttentionTest, AttendsToThePositionsUpToItsOwn) {
  const std::vector<int32_t> sequences = {0, 2, 1, 1, 0, 2}, positions = {0, 1, 15, 16, 52, 69};
  const Tensor q = random_queries(6, 3);
  const Tensor out = attend(q, sequences, positions);
  for (int64_t t = 0; t < 6; ++t) {
    const auto i = static_cast<size_t>(t);
    expect_close(out.slice(t, t + 1), expected(q.at(t), sequences[i], positions[i]), GetParam().tolerance);
  }
}

TEST_P(PagedAttentionTest, QueryHasTheSameBitsInAnyBatchAndChunk) {
  std::vector<int32_t> sequences(kMaxLength, 1), positions(kMaxLength);
  std::iota(positions.begin(), positions.end(), 0);
  const Tensor q = random_queries(kMaxLength, 4);
  const Tensor whole = attend(q, sequences, positions);
  for (const int64_t chunk : {1, 2, 3, 5, 8, 17, 64}) {
    for (int64_t begin = 0; begin < kMaxLength; begin += chunk) {
      const int64_t end = std::min(begin + chunk, kMaxLength);
      const Tensor part = attend(q.slice(begin, end), {sequences.begin() + begin, sequences.begin() + end},
                                 {positions.begin() + begin, positions.begin() + end});
      ASSERT_TRUE(same_bits(part, whole.slice(begin, end))) << "chunk " << chunk << " at " << begin;
    }
  }
  const Tensor mixed = attend(q.slice(20, 23), {0, 1, 2}, {69, 21, 3});
  EXPECT_TRUE(same_bits(mixed.slice(1, 2), whole.slice(21, 22)));
}

TEST_P(PagedAttentionTest, NeverReadsLaterPositionsOrForeignBlocks) {
  const Tensor q = random_queries(1, 5);
  const Tensor before = attend(q, {1}, {33});
  Tensor nan = Tensor::empty({1, GetParam().kv_heads, GetParam().head_size}, DType::kF32);
  for (float& value : nan.span<float>()) value = NAN;
  for (int32_t p = 0; p < kMaxLength; ++p) {
    store_kv(nan, nan, index_tensor({slot_of(0, p)}), cache_, stream_);
    if (p > 33) store_kv(nan, nan, index_tensor({slot_of(1, p)}), cache_, stream_);
  }
  EXPECT_TRUE(same_bits(attend(q, {1}, {33}), before));
}

TEST_P(PagedAttentionTest, AcceptsNoQueriesAndNoRowsToStore) {
  EXPECT_EQ(attend(random_queries(0, 6), {}, {}).dim(0), 0);
  const Tensor none = Tensor::empty({0, GetParam().kv_heads, GetParam().head_size}, DType::kF32);
  store_kv(none, none, index_tensor({}), cache_, stream_);
}

INSTANTIATE_TEST_SUITE_P(Layouts, PagedAttentionTest,
                         testing::Values(Layout{1, 1, 1, 1, DType::kF32, 5e-6}, Layout{4, 1, 16, 16, DType::kF32, 5e-6},
                                         Layout{6, 2, 64, 16, DType::kF32, 5e-6}, Layout{3, 3, 5, 7, DType::kBF16, 5e-6},
                                         Layout{14, 2, 23, 3, DType::kBF16, 5e-6}, Layout{8, 4, 64, 16, DType::kBF16, 5e-6},
                                         Layout{17, 1, 32, 5, DType::kBF16, 5e-6}, Layout{4, 2, 128, 32, DType::kBF16, 5e-6}));

TEST(PagedAttentionDeathTest, RefusesIndicesOutsideTheCache) {
  Stream stream;
  PagedKv cache{Tensor::zeros({2, 4, 1, 8}, DType::kF32), Tensor::zeros({2, 4, 1, 8}, DType::kF32)};
  const Tensor q = Tensor::zeros({1, 1, 8}, DType::kF32);
  Tensor out = Tensor::zeros({1, 1, 8}, DType::kF32);
  const Tensor tables = index_tensor({0, 2}).reshaped({1, 2}), zero = index_tensor({0});
  EXPECT_DEATH(store_kv(q, q, index_tensor({8}), cache, stream), "slot 8 of 8");
  EXPECT_DEATH(paged_attention({q, zero, index_tensor({8}), tables, 1.0f}, cache, out, stream), "position 8");
  EXPECT_DEATH(paged_attention({q, zero, index_tensor({4}), tables, 1.0f}, cache, out, stream), "block 2 of 2");
  EXPECT_DEATH(paged_attention({q, index_tensor({1}), zero, tables, 1.0f}, cache, out, stream), "sequence 1");
}

}  // namespace
}  // namespace skipper
