// Attention against its definition in FP64, and that a query's bits depend on its own sequence alone.
#include "kernels/cuda/paged_attention.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <span>
#include <string>

#include "kernels/elementwise.h"
#include "tests/kernels/cuda/gpu_test.h"

namespace skipper::cuda {
namespace {

struct Heads {
  int64_t heads, kv_heads, dim;
};
std::ostream& operator<<(std::ostream& out, const Heads& h) { return out << h.heads << "/" << h.kv_heads << "x" << h.dim; }

// Queries of one sequence in one step: positions [start, start + count).
struct Span {
  int64_t sequence, start, count;
};

Tensor to_bf16(const Tensor& values) {
  Tensor rounded = Tensor::empty(values.shape(), DType::kBF16);
  cpu::convert(values, rounded);
  return rounded;
}
Tensor to_f32(const Tensor& values) {
  Tensor widened = Tensor::empty(values.shape(), DType::kF32);
  cpu::convert(values, widened);
  return widened;
}

constexpr int64_t kBlockSize = 16;

// Sequences of given lengths with scattered blocks. Cache rows that belong to no position hold NaN.
class PagedAttention : public GpuTest, public testing::WithParamInterface<Heads> {
 protected:
  void make(const std::vector<int64_t>& lengths) {
    const Heads h = GetParam();
    max_blocks_ = 0;
    int64_t num_blocks = 3;
    for (const int64_t length : lengths) {
      max_blocks_ = std::max(max_blocks_, (length + kBlockSize - 1) / kBlockSize);
      num_blocks += (length + kBlockSize - 1) / kBlockSize;
    }
    std::vector<int32_t> order(static_cast<size_t>(num_blocks));
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), std::mt19937(3));
    tables_ = Tensor::zeros({static_cast<int64_t>(lengths.size()), max_blocks_}, DType::kI32);
    Tensor k = Tensor::empty({num_blocks * kBlockSize, h.kv_heads, h.dim}, DType::kF32);
    std::fill_n(k.data<float>(), k.num_elements(), std::numeric_limits<float>::quiet_NaN());
    Tensor v = Tensor::empty(k.shape(), DType::kF32);
    std::fill_n(v.data<float>(), v.num_elements(), std::numeric_limits<float>::quiet_NaN());
    queries_.clear();
    size_t next = 0;
    for (size_t s = 0; s < lengths.size(); ++s) {
      queries_.push_back(to_bf16(random_f32({lengths[s], h.heads, h.dim}, 10 + static_cast<uint32_t>(s), 2.0f)));
      const Tensor keys = random_f32({lengths[s], h.kv_heads, h.dim}, 100 + static_cast<uint32_t>(s));
      const Tensor values = random_f32(keys.shape(), 200 + static_cast<uint32_t>(s));
      for (int64_t p = 0; p < lengths[s]; ++p) {
        int32_t& block = tables_.row<int32_t>(static_cast<int64_t>(s))[p / kBlockSize];
        if (p % kBlockSize == 0) block = order[next++];
        const int64_t slot = block * kBlockSize + p % kBlockSize;
        std::copy_n(keys.row<float>(p), h.kv_heads * h.dim, k.row<float>(slot));
        std::copy_n(values.row<float>(p), h.kv_heads * h.dim, v.row<float>(slot));
      }
    }
    k_ = to_bf16(k);
    v_ = to_bf16(v);
    k_gpu_ = on_gpu(k_);
    v_gpu_ = on_gpu(v_);
  }

  // One step; `padding` rows and sequences without queries follow. Returns [rows, heads, D] f32.
  Tensor attend(const std::vector<Span>& runs, int64_t padding = 0) {
    const Heads h = GetParam();
    const auto num_sequences = static_cast<int64_t>(runs.size()) + padding;
    Tensor offsets = Tensor::zeros({num_sequences + 1}, DType::kI32), first = Tensor::zeros({num_sequences}, DType::kI32);
    Tensor tables = Tensor::zeros({num_sequences, max_blocks_}, DType::kI32);
    int64_t rows = 0, longest = 1, positions = 1;
    for (size_t i = 0; i < runs.size(); ++i) {
      const auto s = static_cast<int64_t>(i);
      first.data<int32_t>()[s] = static_cast<int32_t>(runs[i].start);
      std::copy_n(tables_.row<int32_t>(runs[i].sequence), max_blocks_, tables.row<int32_t>(s));
      rows += runs[i].count;
      offsets.data<int32_t>()[s + 1] = static_cast<int32_t>(rows);
      longest = std::max(longest, runs[i].count);
      positions = std::max(positions, runs[i].start + runs[i].count);
    }
    for (int64_t s = static_cast<int64_t>(runs.size()); s < num_sequences; ++s) {
      offsets.data<int32_t>()[s + 1] = static_cast<int32_t>(rows);
    }
    Tensor q = Tensor::zeros({rows + padding, h.heads, h.dim}, DType::kBF16);
    int64_t row = 0;
    for (const Span& run : runs) {
      const Tensor part = queries_[static_cast<size_t>(run.sequence)].slice(run.start, run.start + run.count);
      std::memcpy(q.slice(row, row + run.count).bytes(), part.bytes(), part.num_bytes());
      row += run.count;
    }
    AttentionScratch scratch(num_sequences, positions, h.heads, h.dim, Device::cuda(0));
    Tensor out = poisoned(q.shape(), DType::kBF16);
    const Tensor q_gpu = on_gpu(q), offsets_gpu = on_gpu(offsets), first_gpu = on_gpu(first), tables_gpu = on_gpu(tables);
    const PagedAttentionInput input{q_gpu,      k_gpu_,     v_gpu_,  offsets_gpu, first_gpu,
                                    tables_gpu, kBlockSize, scale(), longest,     positions};
    // Twice: what the first launch leaves in the scratch memory must serve the second.
    paged_attention(input, scratch, out, stream());
    paged_attention(input, scratch, out, stream());
    return to_f32(on_host(out));
  }

  float scale() const { return 1.0f / std::sqrt(static_cast<float>(GetParam().dim)); }

  // The definition, for the queries of one run.
  Tensor expected(const Span& run) {
    const Heads h = GetParam();
    const Tensor q = to_f32(queries_[static_cast<size_t>(run.sequence)]), k = to_f32(k_), v = to_f32(v_);
    Tensor out = Tensor::empty({run.count, h.heads, h.dim}, DType::kF32);
    for (int64_t i = 0; i < run.count; ++i) {
      for (int64_t head = 0; head < h.heads; ++head) write_expected(q, k, v, run, i, head, out);
    }
    return out;
  }

 private:
  void write_expected(const Tensor& q, const Tensor& k, const Tensor& v, const Span& run, int64_t i, int64_t head, Tensor& out) {
    const Heads h = GetParam();
    const int64_t kv_head = head / (h.heads / h.kv_heads), last = run.start + i;
    const auto slot = [&](int64_t p) { return tables_.row<int32_t>(run.sequence)[p / kBlockSize] * kBlockSize + p % kBlockSize; };
    const float* query = q.row<float>(last) + head * h.dim;
    std::vector<double> weights;
    for (int64_t p = 0; p <= last; ++p) {
      const float* key = k.row<float>(slot(p)) + kv_head * h.dim;
      double score = 0.0;
      for (int64_t d = 0; d < h.dim; ++d) score += static_cast<double>(query[d]) * key[d];
      weights.push_back(score * scale());
    }
    const double maximum = *std::ranges::max_element(weights);
    double sum = 0.0;
    for (double& weight : weights) sum += weight = std::exp(weight - maximum);
    for (int64_t d = 0; d < h.dim; ++d) {
      double value = 0.0;
      for (int64_t p = 0; p <= last; ++p) {
        value += weights[static_cast<size_t>(p)] * v.row<float>(slot(p))[kv_head * h.dim + d];
      }
      out.row<float>(i)[head * h.dim + d] = static_cast<float>(value / sum);
    }
  }

  int64_t max_blocks_ = 0;
  Tensor tables_, k_, v_, k_gpu_, v_gpu_;
  std::vector<Tensor> queries_;
};

TEST_P(PagedAttention, MatchesTheDefinitionAtEveryLength) {
  for (const int64_t length : {1, 15, 63, 64, 65, 130, 255, 256, 257, 520}) {
    make({length});
    EXPECT_LT(relative_error(attend({Span{0, 0, length}}), expected(Span{0, 0, length})), 1e-2) << "prefill " << length;
    const Span last{0, length - 1, 1};
    EXPECT_LT(relative_error(attend({last}), expected(last)), 1e-2) << "decode " << length;
  }
}

TEST_P(PagedAttention, BitsDependNeitherOnChunksNorOnNeighboursNorOnPadding) {
  make({300, 700, 1, 40});
  const Tensor alone = attend({Span{1, 0, 700}});
  const Tensor together = attend({{0, 0, 300}, {1, 0, 700}, {2, 0, 1}, {3, 0, 40}});
  EXPECT_TRUE(same_bytes(together.slice(300, 1000), alone));
  for (const Span& chunk : {Span{1, 0, 100}, Span{1, 100, 33}, Span{1, 133, 567}}) {
    const Tensor whole = alone.slice(chunk.start, chunk.start + chunk.count);
    EXPECT_TRUE(same_bytes(attend({{3, 20, 20}, chunk}).slice(20, 20 + chunk.count), whole));
  }
  const Tensor padded = attend({{0, 10, 5}, {1, 0, 700}}, 3);
  EXPECT_TRUE(same_bytes(padded.slice(5, 705), alone));
  for (const float value : padded.slice(705, 708).span<float>()) ASSERT_EQ(value, 0.0f);
}

TEST_P(PagedAttention, DecodeHasTheBitsOfPrefill) {
  make({300, 700, 64, 257, 1});
  const std::vector<int64_t> lengths{300, 700, 64, 257, 1};
  std::vector<Span> last;
  for (size_t s = 0; s < lengths.size(); ++s) last.push_back({static_cast<int64_t>(s), lengths[s] - 1, 1});
  const Tensor decoded = attend(last, 2);
  for (size_t s = 0; s < lengths.size(); ++s) {
    const auto index = static_cast<int64_t>(s);
    const Tensor prefilled = attend({Span{index, 0, lengths[s]}});
    EXPECT_TRUE(same_bytes(decoded.slice(index, index + 1), prefilled.slice(lengths[s] - 1, lengths[s]))) << "sequence " << s;
  }
  for (const float value : decoded.slice(5, 7).span<float>()) ASSERT_EQ(value, 0.0f);
}

TEST_P(PagedAttention, QueriesAmongPromptsHaveTheBitsOfDecode) {
  make({300, 700, 64, 257, 1100});
  const std::vector<Span> single{{1, 699, 1}, {2, 63, 1}, {3, 256, 1}, {4, 1099, 1}};
  const Tensor decoded = attend(single);
  std::vector<Span> mixed{{0, 0, 300}};
  mixed.insert(mixed.end(), single.begin(), single.end());
  EXPECT_TRUE(same_bytes(attend(mixed, 2).slice(300, 304), decoded));
}

TEST_P(PagedAttention, RowsWithoutSequencesAreZeros) {
  const Heads h = GetParam();
  const Tensor offsets = on_gpu(Tensor::zeros({1}, DType::kI32)), none = on_gpu(Tensor::empty({0}, DType::kI32));
  const Tensor tables = on_gpu(Tensor::empty({0, 4}, DType::kI32)), q = poisoned({5, h.heads, h.dim}, DType::kBF16);
  const Tensor cache = poisoned({kBlockSize, h.kv_heads, h.dim}, DType::kBF16);
  AttentionScratch scratch(1, 1, h.heads, h.dim, Device::cuda(0));
  for (const int64_t max_queries : {1, 5}) {
    Tensor out = poisoned(q.shape(), DType::kBF16);
    paged_attention({q, cache, cache, offsets, none, tables, kBlockSize, scale(), max_queries, 1}, scratch, out, stream());
    const Tensor result = to_f32(on_host(out));
    for (const float value : result.span<float>()) ASSERT_EQ(value, 0.0f);
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, PagedAttention,
                         testing::Values(Heads{32, 4, 128}, Heads{8, 2, 64}, Heads{4, 4, 64}, Heads{7, 1, 128},
                                         Heads{16, 1, 64}, Heads{4, 2, 16}, Heads{6, 2, 32}));

}  // namespace
}  // namespace skipper::cuda
