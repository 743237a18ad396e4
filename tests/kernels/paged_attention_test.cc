#include "kernels/paged_attention.h"

#include <algorithm>
#include <numeric>

#include "kernels/cpu/instruction_set.h"
#include "tests/kernels/random_tensors.h"

namespace skipper {
namespace {

struct Layout {
  int64_t heads, kv_heads, head_size, block_size;
  DType cache_dtype;
};

// Sequences whose blocks lie scattered over one cache; memory that nobody wrote is NaN.
class PagedAttentionTest : public testing::TestWithParam<Layout> {
 protected:
  static constexpr int64_t kMaxLength = 1001;

  PagedAttentionTest() {
    const Layout& layout = GetParam();
    max_blocks_ = (kMaxLength + layout.block_size - 1) / layout.block_size;
    cache_ = empty_cache();
    std::vector<int32_t> blocks(static_cast<size_t>(kNumSequences * max_blocks_));
    std::iota(blocks.begin(), blocks.end(), 0);
    std::shuffle(blocks.begin(), blocks.end(), std::mt19937(1));
    block_tables_ = index_tensor(blocks).reshaped({kNumSequences, max_blocks_});
    const Shape rows{kMaxLength, layout.kv_heads, layout.head_size};
    for (int32_t s = 0; s < kNumSequences; ++s) {
      keys_.push_back(random_tensor(rows, DType::kF32, 10 + static_cast<uint32_t>(s)));
      values_.push_back(random_tensor(rows, DType::kF32, 20 + static_cast<uint32_t>(s)));
      store_sequence(s, cache_, stream_);
    }
  }

  PagedKv empty_cache() const {
    const Layout& layout = GetParam();
    PagedKv cache = empty_paged_kv({kNumSequences * max_blocks_, layout.block_size, layout.kv_heads, layout.head_size},
                                   layout.cache_dtype);
    for (Tensor* tensor : {&cache.k, &cache.v}) std::memset(tensor->bytes(), 0xff, tensor->num_bytes());
    return cache;
  }

  void store_sequence(int32_t sequence, PagedKv& cache, Stream& stream) const {
    std::vector<int32_t> slots;
    for (int32_t p = 0; p < kMaxLength; ++p) slots.push_back(slot_of(sequence, p));
    store_kv(keys_[static_cast<size_t>(sequence)], values_[static_cast<size_t>(sequence)], index_tensor(slots), cache, stream);
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

  struct Expectation {
    std::vector<double> out, bound;
  };

  // From the definition, over the rounded rows of one sequence; q [heads, D]. With a BF16 cache scaled queries are rounded as
  // the kernel rounds them, and what remains is the rounding of the weights: each is off by at most 2^-9 of itself, which
  // moves their weighted mean by at most 2^-8 of the mean of |v|. FP32 sums add the rest.
  Expectation expected(const Tensor& q, int32_t sequence, int32_t position) const {
    const Layout& layout = GetParam();
    const auto size = static_cast<size_t>(layout.heads * layout.head_size);
    Expectation result{std::vector<double>(size), std::vector<double>(size)};
    const double weight_error = layout.cache_dtype == DType::kBF16 ? 1.0 / 256 : 0.0;
    for (int64_t h = 0; h < layout.heads; ++h) {
      const int64_t group = h / (layout.heads / layout.kv_heads);
      const auto at = [&](int64_t d) { return static_cast<size_t>(h * layout.head_size + d); };
      double total = 0;
      for (int32_t p = 0; p <= position; ++p) {
        double dot = 0;
        for (int64_t d = 0; d < layout.head_size; ++d) {
          dot += double{rounded(q.data<float>()[at(d)] * (scale() * 1.44269504f))} *
                 rounded(keys_[static_cast<size_t>(sequence)], p, group, d);
        }
        const double weight = std::exp2(dot);
        total += weight;
        for (int64_t d = 0; d < layout.head_size; ++d) {
          const double value = rounded(values_[static_cast<size_t>(sequence)], p, group, d);
          result.out[at(d)] += weight * value;
          result.bound[at(d)] += weight * std::abs(value);
        }
      }
      for (int64_t d = 0; d < layout.head_size; ++d) {
        result.out[at(d)] /= total;
        result.bound[at(d)] = (weight_error + 1e-5) * result.bound[at(d)] / total + 1e-6;
      }
    }
    return result;
  }

  float rounded(float value) const {
    return GetParam().cache_dtype == DType::kBF16 ? static_cast<float>(bf16(value)) : value;
  }
  double rounded(const Tensor& rows, int64_t position, int64_t group, int64_t d) const {
    return double{rounded(rows.row<float>(position)[group * GetParam().head_size + d])};
  }

  void expect_near(const Tensor& actual, const Expectation& expectation) const {
    for (size_t i = 0; i < expectation.out.size(); ++i) {
      const double value = double{actual.data<float>()[i]};
      ASSERT_LE(std::abs(value - expectation.out[i]), expectation.bound[i])
          << "element " << i << " is " << value << ", expected " << expectation.out[i];
    }
  }

  static constexpr int32_t kNumSequences = 3;
  int64_t max_blocks_ = 0;
  PagedKv cache_;
  Tensor block_tables_;
  std::vector<Tensor> keys_, values_;
  Stream stream_;
};

TEST_P(PagedAttentionTest, AttendsToThePositionsUpToItsOwnOnEveryInstructionSet) {
  const std::vector<int32_t> sequences = {0, 2, 1, 1, 0, 2, 2, 0, 1, 1};
  const std::vector<int32_t> positions = {0, 1, 15, 16, 17, 52, 63, 64, 65, 1000};
  const Tensor q = random_queries(10, 3);
  std::vector<Expectation> expectations;
  for (size_t i = 0; i < 10; ++i) expectations.push_back(expected(q.at(static_cast<int64_t>(i)), sequences[i], positions[i]));
  for (const cpu::Isa isa : cpu::available_isas()) {
    SCOPED_TRACE(cpu::name_of(isa));
    const cpu::IsaOverride chosen(isa);
    const Tensor out = attend(q, sequences, positions);
    for (size_t i = 0; i < 10; ++i) expect_near(out.at(static_cast<int64_t>(i)), expectations[i]);
  }
}

TEST_P(PagedAttentionTest, QueryHasTheSameBitsInAnyBatchAndChunkOnEveryInstructionSet) {
  constexpr int64_t kLength = 140;
  std::vector<int32_t> sequences(kLength, 1), positions(kLength);
  std::iota(positions.begin(), positions.end(), 0);
  const Tensor q = random_queries(kLength, 4);
  for (const cpu::Isa isa : cpu::available_isas()) {
    SCOPED_TRACE(cpu::name_of(isa));
    const cpu::IsaOverride chosen(isa);
    const Tensor whole = attend(q, sequences, positions);
    for (const int64_t chunk : {1, 2, 3, 5, 8, 17, 64}) {
      for (int64_t begin = 0; begin < kLength; begin += chunk) {
        const int64_t end = std::min(begin + chunk, kLength);
        const Tensor part = attend(q.slice(begin, end), {sequences.begin() + begin, sequences.begin() + end},
                                   {positions.begin() + begin, positions.begin() + end});
        ASSERT_TRUE(same_bits(part, whole.slice(begin, end))) << "chunk " << chunk << " at " << begin;
      }
    }
    const Tensor mixed = attend(q.slice(20, 23), {0, 1, 2}, {69, 21, 3});
    EXPECT_TRUE(same_bits(mixed.slice(1, 2), whole.slice(21, 22)));
  }
}

TEST_P(PagedAttentionTest, StoresAndAttendsToTheSameBitsOnAnyNumberOfThreads) {
  std::vector<int32_t> sequences(80, 1), positions(80);
  std::iota(positions.begin(), positions.end(), 900);
  for (const int32_t other : {0, 2, 0}) {
    sequences.push_back(other);
    positions.push_back(70 * other + 5);
  }
  const Tensor q = random_queries(static_cast<int64_t>(positions.size()), 7);
  const Tensor alone = attend(q, sequences, positions);
  for (const int num_threads : {1, 2, 3}) {
    ThreadPool workers(num_threads);
    Stream stream(workers);
    PagedKv cache = empty_cache();
    for (int32_t s = 0; s < kNumSequences; ++s) store_sequence(s, cache, stream);
    EXPECT_TRUE(same_bits(cache.k, cache_.k) && same_bits(cache.v, cache_.v)) << num_threads << " threads";
    Tensor out = Tensor::empty(q.shape(), DType::kF32);
    paged_attention({q, index_tensor(sequences), index_tensor(positions), block_tables_, scale()}, cache, out, stream);
    EXPECT_TRUE(same_bits(out, alone)) << num_threads << " threads";
  }
}

TEST_P(PagedAttentionTest, NeverReadsLaterPositionsOrForeignBlocks) {
  const std::vector<int32_t> positions = {31, 32, 33, 48, 63, 64};
  const Tensor q = random_queries(6, 5);
  const Tensor before = attend(q, {1, 1, 1, 1, 1, 1}, positions);
  Tensor nan = Tensor::empty({1, GetParam().kv_heads, GetParam().head_size}, DType::kF32);
  for (float& value : nan.span<float>()) value = NAN;
  for (int32_t p = 0; p < kMaxLength; ++p) store_kv(nan, nan, index_tensor({slot_of(0, p)}), cache_, stream_);
  for (int64_t i = 5; i >= 0; --i) {
    const int32_t position = positions[static_cast<size_t>(i)];
    for (int32_t p = position + 1; p < kMaxLength; ++p) store_kv(nan, nan, index_tensor({slot_of(1, p)}), cache_, stream_);
    for (const cpu::Isa isa : cpu::available_isas()) {
      const cpu::IsaOverride chosen(isa);
      const Tensor out = attend(q.slice(i, i + 1), {1}, {position});
      for (const float value : out.span<float>()) ASSERT_TRUE(std::isfinite(value)) << cpu::name_of(isa) << ' ' << position;
    }
    EXPECT_TRUE(same_bits(attend(q.slice(i, i + 1), {1}, {position}), before.slice(i, i + 1))) << "position " << position;
  }
}

// A row beside one that sees a NaN: rows of a chunk share tiles, not values.
TEST_P(PagedAttentionTest, NanOfAPositionReachesOnlyTheQueriesThatSeeIt) {
  const Tensor q = random_queries(8, 8);
  const std::vector<int32_t> sequences(8, 1), positions = {60, 61, 62, 63, 64, 65, 66, 67};
  const Tensor before = attend(q, sequences, positions);
  Tensor nan = Tensor::empty({1, GetParam().kv_heads, GetParam().head_size}, DType::kF32);
  for (float& value : nan.span<float>()) value = NAN;
  for (const int32_t poisoned : {65, 63, 61}) {
    store_kv(nan, nan, index_tensor({slot_of(1, poisoned)}), cache_, stream_);
    const Tensor after = attend(q, sequences, positions);
    for (int64_t t = 0; t < 8; ++t) {
      if (positions[static_cast<size_t>(t)] < poisoned) {
        EXPECT_TRUE(same_bits(after.at(t), before.at(t))) << "position " << t + 60 << ", NaN at " << poisoned;
      } else {
        for (const float value : after.slice(t, t + 1).span<float>()) ASSERT_TRUE(std::isnan(value));
      }
    }
  }
}

TEST_P(PagedAttentionTest, AcceptsNoQueriesAndNoRowsToStore) {
  EXPECT_EQ(attend(random_queries(0, 6), {}, {}).dim(0), 0);
  const Tensor none = Tensor::empty({0, GetParam().kv_heads, GetParam().head_size}, DType::kF32);
  store_kv(none, none, index_tensor({}), cache_, stream_);
}

INSTANTIATE_TEST_SUITE_P(
    Layouts, PagedAttentionTest,
    testing::Values(Layout{1, 1, 1, 16, DType::kF32}, Layout{4, 1, 16, 16, DType::kF32}, Layout{6, 2, 64, 16, DType::kF32},
                    Layout{5, 1, 80, 48, DType::kF32}, Layout{4, 4, 23, 16, DType::kF32}, Layout{3, 3, 5, 16, DType::kBF16},
                    Layout{14, 2, 23, 48, DType::kBF16}, Layout{8, 4, 64, 16, DType::kBF16}, Layout{17, 1, 32, 80, DType::kBF16},
                    Layout{4, 2, 128, 32, DType::kBF16}, Layout{16, 1, 8, 16, DType::kBF16}, Layout{4, 4, 24, 64, DType::kBF16},
                    Layout{10, 2, 80, 16, DType::kBF16}, Layout{4, 1, 256, 16, DType::kBF16},
                    Layout{70, 1, 16, 16, DType::kBF16}),
    [](const testing::TestParamInfo<Layout>& info) {
      const Layout& layout = info.param;
      return std::string(name_of(layout.cache_dtype)) + "_" + std::to_string(layout.heads) + "_heads_" +
             std::to_string(layout.kv_heads) + "_kv_heads_of_" + std::to_string(layout.head_size) + "_blocks_of_" +
             std::to_string(layout.block_size);
    });

TEST(PagedAttention, SurvivesScoresFarFromZero) {
  Stream stream;
  PagedKv cache = empty_paged_kv({5, 16, 1, 16}, DType::kBF16);
  const Tensor rows = random_tensor({80, 1, 16}, DType::kF32, 1);
  std::vector<int32_t> slots(80);
  std::iota(slots.begin(), slots.end(), 0);
  store_kv(rows, rows, index_tensor(slots), cache, stream);
  Tensor q = random_tensor({1, 1, 16}, DType::kF32, 2);
  for (float& value : q.span<float>()) value *= 300.0f;
  Tensor out = Tensor::empty(q.shape(), DType::kF32);
  const Tensor tables = index_tensor({0, 1, 2, 3, 4}).reshaped({1, 5});
  paged_attention({q, index_tensor({0}), index_tensor({79}), tables, 1.0f}, cache, out, stream);
  for (const float value : out.span<float>()) EXPECT_LT(std::abs(value), 10.0f);
}

TEST(PagedKv, CountsTheBytesOfKeysAndValues) {
  const PagedKvShape shape{.num_blocks = 3, .block_size = 32, .kv_heads = 2, .head_dim = 72};
  const PagedKv cache = empty_paged_kv(shape, DType::kBF16);
  EXPECT_EQ(cache.k.num_bytes() + cache.v.num_bytes(), paged_kv_bytes(shape, DType::kBF16));
  EXPECT_EQ(paged_kv_bytes(shape, DType::kBF16), size_t{2 * 3 * 32 * 2 * 80 * 2});  // heads padded to whole vectors
}

TEST(PagedAttentionDeathTest, RefusesIndicesOutsideTheCache) {
  Stream stream;
  PagedKv cache = empty_paged_kv({2, 16, 1, 8}, DType::kF32);
  const Tensor q = Tensor::zeros({1, 1, 8}, DType::kF32);
  Tensor out = Tensor::zeros({1, 1, 8}, DType::kF32);
  const Tensor tables = index_tensor({0, 2}).reshaped({1, 2}), zero = index_tensor({0});
  EXPECT_DEATH(store_kv(q, q, index_tensor({32}), cache, stream), "slot 32 of 32");
  EXPECT_DEATH(paged_attention({q, zero, index_tensor({32}), tables, 1.0f}, cache, out, stream), "position 32");
  EXPECT_DEATH(paged_attention({q, zero, index_tensor({16}), tables, 1.0f}, cache, out, stream), "block 2 of 2");
  EXPECT_DEATH(paged_attention({q, index_tensor({1}), zero, tables, 1.0f}, cache, out, stream), "sequence 1");
  EXPECT_DEATH(empty_paged_kv({2, 24, 1, 8}, DType::kF32), "block of 24");
}

}  // namespace
}  // namespace skipper
