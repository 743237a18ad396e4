// Products of integer weights through linear(), on every instruction set of this CPU.
#include <limits>

#include "kernels/cpu/integer_dot.h"
#include "kernels/linear.h"
#include "tests/kernels/integer_formats.h"
#include "tests/kernels/packed_products.h"

namespace skipper {
namespace {

struct ProductShape {
  int64_t rows, columns, depth;
};

// Edges: nothing, one, primes, one more and one less than a chunk, a group, a panel, a tile and eight panels.
constexpr ProductShape kIntegerShapes[] = {{0, 5, 7},    {3, 0, 7},    {2, 3, 0},    {1, 1, 1},    {1, 16, 4},  {2, 17, 5},
                                    {3, 31, 31},  {4, 33, 33},  {5, 128, 64}, {6, 129, 65}, {7, 13, 97}, {12, 144, 128},
                                    {13, 19, 129}, {14, 32, 40}, {27, 47, 257}, {1, 300, 131}};

// The definition of the numerics, one element at a time: what every instruction set must give to the last bit.
float product_by_definition(const PackedMatrix& w, const float* x, int64_t row) {
  float sum = 0;
  for (int64_t begin = 0; begin < w.num_columns; begin += w.format.group_size) {
    const int64_t end = std::min<int64_t>(w.num_columns, begin + w.format.group_size);
    float largest = 0;
    for (int64_t k = begin; k < end; ++k) largest = std::max(largest, std::abs(x[k]));
    int64_t dot = 0;
    for (int64_t k = begin; k < end; ++k) {
      const auto code = largest == 0 ? int64_t{0} : static_cast<int64_t>(std::nearbyint(x[k] * (127.0f / largest)));
      dot += code * (code_at(w, row, k) - zero_at(w, row, k));
    }
    sum = std::fma(static_cast<float>(dot), scale_at(w, row, begin) * (largest / 127.0f), sum);
  }
  return sum;
}

Tensor linear_by_definition(const PackedMatrix& w, const Tensor& x) {
  Tensor y = Tensor::empty({x.dim(0), w.num_rows}, DType::kF32);
  for (int64_t m = 0; m < x.dim(0); ++m) {
    for (int64_t n = 0; n < w.num_rows; ++n) y.row<float>(m)[n] = product_by_definition(w, x.row<float>(m), n);
  }
  return y;
}

class IntegerTiles : public testing::TestWithParam<WeightFormat> {
 protected:
  Tensor multiply(const Tensor& x, const PackedMatrix& w) {
    Tensor y = Tensor::empty({x.dim(0), w.num_rows}, DType::kF32);
    linear(x, {w, {}}, y, stream_);
    return y;
  }

  Stream stream_;
};

TEST_P(IntegerTiles, EqualsTheDefinitionBitForBitOnEveryInstructionSet) {
  for (const auto& [rows, columns, depth] : kIntegerShapes) {
    SCOPED_TRACE(testing::Message() << rows << " x " << columns << " x " << depth);
    const Tensor x = random_tensor({rows, depth}, DType::kF32, 1);
    const PackedMatrix w = pack(random_tensor({columns, depth}, DType::kBF16, 2), GetParam());
    const Tensor expected = linear_by_definition(w, x);
    on_each_isa([&] { EXPECT_TRUE(same_bits(multiply(x, w), expected)); });
  }
}

// Saturation would show here: all codes at one end of their range, all activations at one end of theirs.
TEST_P(IntegerTiles, IsExactAtTheEndsOfAllCodes) {
  for (const uint8_t codes : {uint8_t{0x00}, uint8_t{0xff}}) {
    for (const float value : {3.0f, -3.0f}) {
      PackedMatrix w = pack(random_tensor({32, 256}, DType::kF32, 3), GetParam());
      std::memset(w.codes.bytes(), codes, w.codes.num_bytes());
      Tensor x = Tensor::empty({5, 256}, DType::kF32);
      std::ranges::fill(x.span<float>(), value);
      const Tensor expected = linear_by_definition(w, x);
      on_each_isa([&] { EXPECT_TRUE(same_bits(multiply(x, w), expected)); });
    }
  }
}

// Each activation is off by half a step at most, its step being 1 / 127 of the largest of its group; the rest is FP32 rounding.
TEST_P(IntegerTiles, StaysWithinTheRoundingOfTheActivations) {
  constexpr int64_t kRows = 9, kColumns = 35, kDepth = 300;
  const Tensor x = random_tensor({kRows, kDepth}, DType::kF32, 4);
  const PackedMatrix w = pack(random_tensor({kColumns, kDepth}, DType::kF32, 5), GetParam());
  const Tensor weights = unpack(w), y = multiply(x, w);
  for (int64_t m = 0; m < kRows; ++m) {
    for (int64_t n = 0; n < kColumns; ++n) {
      double exact = 0, bound = 1e-4;
      for (int64_t k = 0; k < kDepth; ++k) {
        const int64_t begin = k / GetParam().group_size * GetParam().group_size;
        double largest = 0;
        for (int64_t i = begin; i < std::min<int64_t>(kDepth, begin + GetParam().group_size); ++i) {
          largest = std::max(largest, std::abs(double{x.row<float>(m)[i]}));
        }
        const double weight = double{weights.row<float>(n)[k]};
        exact += weight * x.row<float>(m)[k];
        bound += std::abs(weight) * largest / 127 * 0.5 * (1 + 1e-5);
      }
      ASSERT_LE(std::abs(y.row<float>(m)[n] - exact), bound);
      // Errors of random sign: far below their sum, and not nothing.
      ASSERT_LE(std::abs(y.row<float>(m)[n] - exact), 0.5 * bound);
    }
  }
}

TEST_P(IntegerTiles, RowHasTheSameBitsAloneAndAmongOthers) {
  const Tensor x = random_tensor({40, 150}, DType::kF32, 6);
  const PackedMatrix w = pack(random_tensor({150, 150}, DType::kF32, 7), GetParam());
  on_each_isa([&] {
    const Tensor together = multiply(x, w);
    for (const int64_t count : {1, 2, 3, 7, 13, 14, 29}) {
      EXPECT_TRUE(same_bits(multiply(x.slice(5, 5 + count), w), together.slice(5, 5 + count))) << count;
    }
  });
}

TEST_P(IntegerTiles, NanAndInfinityBecomeNanInTheirRowOnly) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::quiet_NaN(),
                          std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()}) {
    for (const int64_t column : {0, 31, 130, 149}) {
      Tensor x = random_tensor({3, 150}, DType::kF32, 8);
      const PackedMatrix w = pack(random_tensor({18, 150}, DType::kF32, 9), GetParam());
      const Tensor clean = multiply(x, w);
      x.row<float>(1)[column] = bad;
      on_each_isa([&] {
        const Tensor y = multiply(x, w);
        EXPECT_TRUE(same_bits(y.first(1), clean.first(1)));
        EXPECT_TRUE(same_bits(y.slice(2, 3), clean.slice(2, 3)));
        for (int64_t n = 0; n < 18; ++n) EXPECT_TRUE(std::isnan(y.row<float>(1)[n])) << n;
      });
    }
  }
}

TEST_P(IntegerTiles, ZerosAndTinyActivationsGiveZeros) {
  const PackedMatrix w = pack(random_tensor({17, 100}, DType::kF32, 10), GetParam());
  for (const float value : {0.0f, -0.0f, 1e-45f, 9e-37f}) {
    Tensor x = Tensor::empty({2, 100}, DType::kF32);
    std::ranges::fill(x.span<float>(), value);
    on_each_isa([&] {
      const Tensor y = multiply(x, w);
      for (const float sum : y.span<float>()) EXPECT_EQ(sum, 0.0f);
    });
  }
}

TEST_P(IntegerTiles, TakesActivationsOfAnySize) {
  const PackedMatrix w = pack(random_tensor({17, 100}, DType::kF32, 11), GetParam());
  for (const float size : {1e-35f, 1e-20f, 1e20f, 1e35f}) {
    Tensor x = random_tensor({2, 100}, DType::kF32, 12);
    for (float& value : x.span<float>()) value *= size;
    const Tensor expected = linear_by_definition(w, x);
    on_each_isa([&] { EXPECT_TRUE(same_bits(multiply(x, w), expected)) << size; });
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, IntegerTiles, testing::ValuesIn(kIntegerFormats), name_of_integer_format);

#if defined(__x86_64__)
// AVX-VNNI's instruction on eight rows has the same meaning as that of AVX-512 VNNI, which is what this CPU may have.
[[gnu::target("avx2,fma,avx512f,avx512bw,avx512vl,avx512vnni")]] void dot_of_eight_rows(const uint32_t* codes, uint32_t inputs,
                                                                                      int32_t* sums) {
  using Dot = cpu::VnniDot<8>;
  Dot::Words quad;
  __builtin_memcpy(&quad, codes, sizeof(quad));
  Dot::Ints sum;
  __builtin_memcpy(&sum, sums, sizeof(sum));
  Dot::add(sum, Dot::prepare(quad), Dot::broadcast(&inputs, 1));
  __builtin_memcpy(sums, &sum, sizeof(sum));
}

TEST(IntegerDot, OfEightRowsByVnniIsExact) {
  if (cpu::best_isa() < cpu::Isa::kAvx512Vnni) GTEST_SKIP() << "this CPU has no AVX-512 VNNI";
  const uint32_t codes[8] = {0xffffffff, 0, 0x01020304, 0x80808080, 0xff00ff00, 0x7f7f7f7f, 1, 0xff000000};
  int32_t sums[8] = {0, 7, -5, 100, 0, 0, -1, 0};
  constexpr int8_t kInputs[4] = {127, -127, 5, -1};
  uint32_t inputs;
  std::memcpy(&inputs, kInputs, sizeof(inputs));
  int32_t expected[8];
  for (int row = 0; row < 8; ++row) {
    expected[row] = sums[row];
    for (int k = 0; k < 4; ++k) expected[row] += static_cast<int32_t>(codes[row] >> (8 * k) & 255) * kInputs[k];
  }
  dot_of_eight_rows(codes, inputs, sums);
  for (int row = 0; row < 8; ++row) EXPECT_EQ(sums[row], expected[row]) << row;
}
#endif

}  // namespace
}  // namespace skipper
