#include "kernels/cuda/decoder_rows.h"

#include <cmath>

#include "kernels/elementwise.h"
#include "kernels/rms_norm.h"
#include "kernels/rms_norm_rope.h"
#include "kernels/rope.h"
#include "tests/kernels/cuda/gpu_test.h"

namespace skipper::cuda {
namespace {

Tensor i32(const std::vector<int32_t>& values) {
  Tensor tensor = Tensor::empty({static_cast<int64_t>(values.size())}, DType::kI32);
  std::copy(values.begin(), values.end(), tensor.data<int32_t>());
  return tensor;
}

Tensor converted(const Tensor& x, DType dtype) {
  Tensor y = Tensor::empty(x.shape(), dtype);
  cpu::convert(x, y);
  return y;
}

// Any bits will do as integers.
Tensor borrowed_as_i32(const Tensor& x) { return Tensor::borrow_const(x.bytes(), x.shape(), DType::kI32); }

void expect_row(const Tensor& actual, int64_t row, const float* expected) {
  for (int64_t i = 0; i < actual.row_elements(); ++i) ASSERT_EQ(actual.row<float>(row)[i], expected[i]) << row << ", " << i;
}

class DecoderRows : public GpuTest {
 protected:
  Tensor embedded(const Tensor& ids, const Tensor& table) {
    Tensor hidden = poisoned({ids.dim(0), table.dim(1)}, DType::kF32);
    embed_tokens(on_gpu(ids), on_gpu(table), hidden, stream());
    return on_host(hidden);
  }
  NormedRows poisoned_rows(const Shape& shape) { return {poisoned(shape, DType::kF32), poisoned(shape, DType::kBF16)}; }
  void expect_normed(NormedRows& out, const Tensor& expected) {
    const Tensor f32 = on_host(out.f32), bf16 = on_host(out.bf16);
    EXPECT_LT(relative_error(f32, expected), 1e-6) << expected.shape().to_string();
    EXPECT_TRUE(same_bytes(bf16, converted(f32, DType::kBF16))) << expected.shape().to_string();
  }
};

TEST_F(DecoderRows, EmbedsEachIdAndLeavesZerosWhereThereIsNone) {
  constexpr int64_t kVocab = 11;
  const std::vector<int32_t> ids{3, 0, -1, 10, 3};
  for (const int64_t size : {4, 52, 256, 2048}) {
    const Tensor table = random_f32({kVocab, size}, 1);
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      const Tensor expected = converted(converted(table, dtype), DType::kF32);
      const Tensor hidden = embedded(i32(ids), converted(table, dtype));
      const std::vector<float> zeros(static_cast<size_t>(size), 0.0f);
      for (size_t t = 0; t < ids.size(); ++t) {
        expect_row(hidden, static_cast<int64_t>(t), ids[t] < 0 ? zeros.data() : expected.row<float>(ids[t]));
      }
    }
  }
}

TEST_F(DecoderRows, EmbedsNothingWithoutTokens) { EXPECT_EQ(embedded(i32({}), random_f32({3, 8}, 1)).num_elements(), 0); }

TEST_F(DecoderRows, SplicesFeaturesIntoTheirRowsOnly) {
  constexpr int64_t kRows = 7, kSize = 260;
  const Tensor hidden = random_f32({kRows, kSize}, 1), features = random_f32({3, kSize}, 2);
  const std::vector<int32_t> rows{5, -1, 0};
  for (const SpliceKind kind : {SpliceKind::kReplace, SpliceKind::kAdd}) {
    Tensor spliced = on_gpu(hidden);
    splice_rows(on_gpu(features), on_gpu(i32(rows)), kind, spliced, stream());
    Tensor expected = Tensor::empty(hidden.shape(), DType::kF32);
    std::copy_n(hidden.data<float>(), hidden.num_elements(), expected.data<float>());
    for (int64_t i = 0; i < kSize; ++i) {
      for (const int64_t feature : {0, 2}) {
        float& target = expected.row<float>(rows[static_cast<size_t>(feature)])[i];
        target = (kind == SpliceKind::kAdd ? target : 0.0f) + features.row<float>(feature)[i];
      }
    }
    EXPECT_TRUE(same_bytes(on_host(spliced), expected));
  }
}

TEST_F(DecoderRows, GathersRowsOfEveryWidthAndType) {
  const std::vector<int32_t> rows{4, -1, 0, 4, 1};
  for (const int64_t size : {1, 3, 8, 257, 2048}) {
    for (const DType dtype : {DType::kF32, DType::kI32, DType::kBF16}) {
      const Tensor values = random_f32({5, size}, 1);
      const Tensor x = dtype == DType::kI32 ? borrowed_as_i32(values) : converted(values, dtype);
      Tensor y = poisoned({5, size}, dtype);
      gather_rows(on_gpu(x), on_gpu(i32(rows)), y, stream());
      const Tensor gathered = on_host(y);
      const size_t row_bytes = x.num_bytes() / 5;
      const std::vector<std::byte> zeros(row_bytes);
      for (size_t i = 0; i < rows.size(); ++i) {
        const std::byte* expected = rows[i] < 0 ? zeros.data() : x.bytes() + static_cast<size_t>(rows[i]) * row_bytes;
        EXPECT_EQ(std::memcmp(gathered.bytes() + i * row_bytes, expected, row_bytes), 0) << name_of(dtype) << size << ", " << i;
      }
    }
  }
}

TEST_F(DecoderRows, NormalisesAsOnTheHost) {
  Stream host;
  for (const int64_t size : {4, 52, 256, 1028, 2048, 4096, 8192}) {
    for (const int64_t num_rows : {1, 13, 128}) {
      const Tensor x = random_f32({num_rows, size}, 1, 3.0f), weight = random_f32({size}, 2);
      Tensor expected = Tensor::empty(x.shape(), DType::kF32);
      skipper::rms_norm(x, weight, 1e-6f, expected, host);
      NormedRows out = poisoned_rows(x.shape());
      rms_norm(on_gpu(x), {on_gpu(weight)}, out, stream());
      expect_normed(out, expected);
    }
  }
}

TEST_F(DecoderRows, AddsBeforeItNormalises) {
  Stream host;
  for (const int64_t size : {52, 256, 2048}) {
    const Tensor x = random_f32({17, size}, 1), delta = random_f32({17, size}, 3), weight = random_f32({size}, 2);
    Tensor hidden = on_gpu(x), expected_hidden = on_host(hidden), expected = Tensor::empty(x.shape(), DType::kF32);
    skipper::add_rms_norm(delta, {weight, 1e-5f}, expected_hidden, expected, host);
    NormedRows out = poisoned_rows(x.shape());
    add_rms_norm(on_gpu(delta), {on_gpu(weight), 1e-5f}, hidden, out, stream());
    EXPECT_TRUE(same_bytes(on_host(hidden), expected_hidden));
    expect_normed(out, expected);
  }
}

TEST_F(DecoderRows, NormWithoutFullPrecisionGivesTheSameRoundedRows) {
  const Tensor x = on_gpu(random_f32({5, 2048}, 1)), weight = on_gpu(random_f32({2048}, 2));
  NormedRows both = poisoned_rows(x.shape()), rounded{Tensor(), poisoned(x.shape(), DType::kBF16)};
  rms_norm(x, {weight}, both, stream());
  rms_norm(x, {weight}, rounded, stream());
  EXPECT_TRUE(same_bytes(on_host(both.bf16), on_host(rounded.bf16)));
}

TEST_F(DecoderRows, NormOfARowDoesNotDependOnTheOthers) {
  constexpr int64_t kRows = 67, kSize = 2048;
  const Tensor x = on_gpu(random_f32({kRows, kSize}, 1)), weight = on_gpu(random_f32({kSize}, 2));
  NormedRows all = poisoned_rows({kRows, kSize}), one = poisoned_rows({1, kSize});
  rms_norm(x, {weight}, all, stream());
  for (const int64_t row : {int64_t{0}, int64_t{31}, kRows - 1}) {
    rms_norm(x.slice(row, row + 1), {weight}, one, stream());
    EXPECT_TRUE(same_bytes(on_host(one.f32), on_host(all.f32.slice(row, row + 1)))) << row;
  }
}

TEST_F(DecoderRows, NormOfNoRowsIsNoLaunch) {
  NormedRows out = poisoned_rows({0, 256});
  rms_norm(poisoned({0, 256}, DType::kF32), {on_gpu(random_f32({256}, 2))}, out, stream());
  stream().synchronize();
}

TEST_F(DecoderRows, TurnsPositionsOfEachAxisToAngles) {
  constexpr int64_t kTokens = 5, kHalf = 37;
  const std::vector<int32_t> positions{0, 0, 0, 1, 2, 3, 4096, 17, 5, 262143, 1, 0, -1, -1, -1};
  Tensor axis = Tensor::empty({kHalf}, DType::kI32), frequency = Tensor::empty({kHalf}, DType::kF32);
  for (int64_t i = 0; i < kHalf; ++i) {
    axis.data<int32_t>()[i] = static_cast<int32_t>(i % 3);
    frequency.data<float>()[i] = static_cast<float>(std::pow(5e6, -static_cast<double>(i) / kHalf));
  }
  Tensor cos_sin = poisoned({kTokens, 2 * kHalf}, DType::kF32);
  rotary_cos_sin(on_gpu(i32(positions)).reshaped({kTokens, 3}), {on_gpu(axis), on_gpu(frequency)}, cos_sin, stream());
  const Tensor result = on_host(cos_sin);
  for (int64_t t = 0; t < kTokens; ++t) {
    for (int64_t i = 0; i < kHalf; ++i) {
      const float position = static_cast<float>(positions[static_cast<size_t>(t * 3 + i % 3)]);
      const float angle = position * frequency.data<float>()[i];
      EXPECT_NEAR(result.row<float>(t)[i], std::cos(static_cast<double>(angle)), 1e-6) << t << ", " << i;
      EXPECT_NEAR(result.row<float>(t)[kHalf + i], std::sin(static_cast<double>(angle)), 1e-6) << t << ", " << i;
    }
  }
}

// What split_heads is checked with: T tokens of random queries, keys and values, angles, and every third token without a slot.
struct HeadsCase {
  HeadsCase(int64_t num_tokens, int64_t heads, int64_t kv, int64_t dim)
      : tokens(num_tokens),
        num_heads(heads),
        num_kv_heads(kv),
        head_dim(dim),
        qkv(random_f32({tokens, width()}, 1, 2.0f)),
        bias(random_f32({width()}, 2)),
        q_norm(random_f32({dim}, 3)),
        k_norm(random_f32({dim}, 4)),
        angles(random_f32({tokens, dim / 2}, 5, 3.0f)) {}

  int64_t width() const { return (num_heads + 2 * num_kv_heads) * head_dim; }
  int64_t num_slots() const { return 2 * tokens + 1; }
  int32_t slot(int64_t token) const { return token % 3 == 1 ? -1 : static_cast<int32_t>(2 * (tokens - 1 - token) + 1); }
  Tensor slots() const {
    std::vector<int32_t> all;
    for (int64_t t = 0; t < tokens; ++t) all.push_back(slot(t));
    return i32(all);
  }
  Tensor cos_sin() const {
    Tensor table = Tensor::empty({tokens, head_dim}, DType::kF32);
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t i = 0; i < head_dim / 2; ++i) {
        table.row<float>(t)[i] = std::cos(angles.row<float>(t)[i]);
        table.row<float>(t)[head_dim / 2 + i] = std::sin(angles.row<float>(t)[i]);
      }
    }
    return table;
  }
  // Heads [begin, begin + count) of each token of `rows`, with their biases, FP32.
  Tensor heads(const Tensor& rows, int64_t begin, int64_t count) const {
    Tensor part = Tensor::empty({tokens, count, head_dim}, DType::kF32);
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t i = 0; i < count * head_dim; ++i) {
        const int64_t column = begin * head_dim + i;
        part.row<float>(t)[i] = rows.row<float>(t)[column] + (bias.defined() ? bias.data<float>()[column] : 0.0f);
      }
    }
    return part;
  }

  int64_t tokens, num_heads, num_kv_heads, head_dim;
  Tensor qkv, bias, q_norm, k_norm, angles;
};

class SplitHeads : public GpuTest {
 protected:
  struct Result {
    Tensor q, k_cache, v_cache;
  };
  Result run(const HeadsCase& c, DType dtype) {
    const Shape cache{c.num_slots(), c.num_kv_heads, c.head_dim};
    Result result{poisoned({c.tokens, c.num_heads, c.head_dim}, DType::kBF16), poisoned(cache, DType::kBF16),
                  poisoned(cache, DType::kBF16)};
    const Tensor qkv = on_gpu(converted(c.qkv, dtype)), bias = c.bias.defined() ? on_gpu(c.bias) : Tensor();
    const Tensor q_norm = on_gpu(c.q_norm), k_norm = on_gpu(c.k_norm), cos_sin = on_gpu(c.cos_sin()), slots = on_gpu(c.slots());
    split_heads({qkv, bias, q_norm, k_norm, 1e-6f, cos_sin, slots}, {result.q, result.k_cache, result.v_cache}, stream());
    return {on_host(result.q), on_host(result.k_cache), on_host(result.v_cache)};
  }
  // Rounded to BF16, one unit in the last place may go either way: 2^-8 of the largest value at most, and rarely.
  static void expect_close(const Tensor& bf16, const Tensor& expected, const std::string& what) {
    const Tensor rounded = converted(converted(expected, DType::kBF16), DType::kF32);
    EXPECT_LT(relative_error(converted(bf16, DType::kF32), rounded), 2e-3) << what;
  }
  static void expect_cache(const HeadsCase& c, const Tensor& cache, const Tensor& rows, const std::string& what) {
    int64_t stored = 0;
    for (int64_t t = 0; t < c.tokens; ++t) {
      if (c.slot(t) < 0) continue;
      ++stored;
      expect_close(cache.slice(c.slot(t), c.slot(t) + 1), rows.slice(t, t + 1), what + " of token " + std::to_string(t));
    }
    int64_t untouched = 0;
    for (int64_t slot = 0; slot < cache.dim(0); ++slot) {
      const auto* words = cache.data<bf16>() + slot * cache.row_elements();
      untouched += std::all_of(words, words + cache.row_elements(), [](bf16 word) { return word.bits == 0xffff; });
    }
    EXPECT_EQ(untouched, cache.dim(0) - stored) << what << ": a row without a token was written";
  }
  void check(const HeadsCase& c, DType dtype) {
    Stream host;
    const Tensor rows = converted(converted(c.qkv, dtype), DType::kF32);
    Tensor q = c.heads(rows, 0, c.num_heads), k = c.heads(rows, c.num_heads, c.num_kv_heads);
    const Tensor v = c.heads(rows, c.num_heads + c.num_kv_heads, c.num_kv_heads);
    rms_norm_rope(q, {c.q_norm}, c.angles, host);
    rms_norm_rope(k, {c.k_norm}, c.angles, host);
    const Result result = run(c, dtype);
    expect_close(result.q, q, "q");
    expect_cache(c, result.k_cache, k, "k");
    expect_cache(c, result.v_cache, v, "v");
  }
};

TEST_F(SplitHeads, AddsBiasNormalisesRotatesAndStoresAsOnTheHost) {
  for (const int64_t tokens : {1, 2, 31}) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      check(HeadsCase(tokens, 32, 4, 128), dtype);
      check(HeadsCase(tokens, 8, 2, 64), dtype);
      check(HeadsCase(tokens, 3, 1, 128), dtype);
    }
  }
}

TEST_F(SplitHeads, WorksWithoutBias) {
  HeadsCase c(5, 8, 2, 64);
  c.bias = Tensor();
  check(c, DType::kF32);
}

TEST_F(SplitHeads, NothingToDoWithoutTokens) { run(HeadsCase(0, 8, 2, 64), DType::kF32); }

}  // namespace
}  // namespace skipper::cuda
