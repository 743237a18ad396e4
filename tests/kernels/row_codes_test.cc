#include "kernels/row_codes.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <limits>
#include <span>

#include "tests/kernels/packed_products.h"
#include "tests/kernels/random_tensors.h"
#include "tests/support/row_code_reference.h"

namespace skipper {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kUnbounded = std::numeric_limits<float>::infinity();

Tensor row_tensor(const std::vector<float>& values) {
  Tensor row = Tensor::empty({1, static_cast<int64_t>(values.size())}, DType::kF32);
  std::ranges::copy(values, row.span<float>().begin());
  return row;
}

class RowCodes : public testing::TestWithParam<RowCode> {
 protected:
  float largest_code() const { return GetParam() == RowCode::kInt8 ? 127.0f : 448.0f; }

  Tensor encoded(const Tensor& x) {
    Tensor coded = Tensor::empty({x.dim(0), coded_row_bytes(x.dim(1))}, DType::kU8);
    encode_rows(x, GetParam(), coded, stream_);
    return coded;
  }

  Tensor decoded(const Tensor& coded, int64_t row_size) {
    Tensor y = Tensor::empty({coded.dim(0), row_size}, DType::kF32);
    decode_rows(coded, GetParam(), y, stream_);
    return y;
  }

  Tensor round_trip(const Tensor& x) { return decoded(encoded(x), x.dim(1)); }

  std::vector<float> round_trip(const std::vector<float>& values) {
    const Tensor y = round_trip(row_tensor(values));
    return {y.span<float>().begin(), y.span<float>().end()};
  }

  // One coded row of one block with scale 1.
  Tensor codes_with_scale_one(const std::vector<uint8_t>& codes) {
    Tensor coded = Tensor::empty({1, coded_row_bytes(static_cast<int64_t>(codes.size()))}, DType::kU8);
    std::ranges::copy(codes, coded.data<uint8_t>());
    for (size_t at = codes.size(); at < coded.num_bytes(); at += 4) {
      const float one = 1.0f;
      std::memcpy(coded.bytes() + at, &one, sizeof(one));
    }
    return coded;
  }

  void expect_within_half_a_step(std::span<const float> block, const float* decoded) {
    double largest = 0;
    for (const float value : block) largest = std::max(largest, std::abs(double{value}));
    for (size_t i = 0; i < block.size(); ++i) {
      const double magnitude = std::abs(double{block[i]});
      const double half_step = GetParam() == RowCode::kInt8 ? largest / 254 : std::max(magnitude / 16, largest / 458752);
      EXPECT_LE(std::abs(double{decoded[i]} - block[i]), half_step * 1.00002) << block[i] << " beside " << largest;
    }
  }

  Stream stream_;
};

INSTANTIATE_TEST_SUITE_P(Codes, RowCodes, testing::Values(RowCode::kInt8, RowCode::kE4m3), [](const auto& info) {
  return info.param == RowCode::kInt8 ? "Int8" : "E4m3";
});

TEST(CodedRowBytes, AreACodePerChannelAndAScalePerStartedBlock) {
  EXPECT_EQ(coded_row_bytes(1), 5);
  EXPECT_EQ(coded_row_bytes(128), 132);
  EXPECT_EQ(coded_row_bytes(129), 137);
  EXPECT_EQ(coded_row_bytes(2048), 2112);
}

TEST_P(RowCodes, EqualTheReferenceOnEveryInstructionSet) {
  for (const int64_t size : {1, 2, 15, 16, 17, 127, 128, 129, 256, 300, 391}) {
    const Tensor x = random_tensor({5, size}, DType::kF32, static_cast<uint32_t>(size));
    on_each_isa([&] {
      const Tensor y = round_trip(x);
      for (int64_t r = 0; r < 5; ++r) {
        const auto expected = reference_coded_row(GetParam(), x.at(r).span<float>());
        EXPECT_TRUE(std::ranges::equal(y.at(r).span<float>(), expected)) << "row " << r << " of " << size;
      }
    });
  }
}

TEST_P(RowCodes, DecodeAll256Codes) {
  std::vector<uint8_t> codes(256);
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint8_t>(i);
  const Tensor coded = codes_with_scale_one(codes);
  on_each_isa([&] {
    const Tensor y = decoded(coded, 256);
    for (const uint8_t bits : codes) {
      const double expected = value_of_code(GetParam(), bits);
      const float actual = y.data<float>()[bits];
      if (std::isnan(expected)) {
        EXPECT_TRUE(std::isnan(actual)) << int{bits};
      } else {
        EXPECT_EQ(actual, expected) << int{bits};
        EXPECT_EQ(std::signbit(actual), std::signbit(expected)) << int{bits};
      }
    }
  });
}

// Each block begins with the largest code's value, so that its scale is 1.
TEST_P(RowCodes, KeepEveryValueThatHasACode) {
  std::vector<float> values;
  for (int bits = 0; bits < 256; ++bits) {
    if (values.size() % kRowCodeBlock == 0) values.push_back(largest_code());
    const double value = value_of_code(GetParam(), static_cast<uint8_t>(bits));
    if (!std::isnan(value) && std::abs(value) <= largest_code()) values.push_back(static_cast<float>(value));
  }
  on_each_isa([&] { EXPECT_EQ(round_trip(values), values); });
}

TEST_P(RowCodes, RoundTiesToEvenAndTheirNeighboursToTheNearest) {
  std::vector<float> positive;
  for (int bits = 0; bits < 128; ++bits) {
    const double value = value_of_code(GetParam(), static_cast<uint8_t>(bits));
    if (!std::isnan(value)) positive.push_back(static_cast<float>(value));
  }
  std::ranges::sort(positive);
  for (size_t i = 0; i + 1 < positive.size(); ++i) {
    const float low = positive[i], high = positive[i + 1], tie = (low + high) / 2;  // exact
    const float even = i % 2 == 0 ? low : high;
    const std::vector<float> block = {largest_code(), tie, -tie, std::nextafter(tie, 0.0f), std::nextafter(tie, kUnbounded)};
    const std::vector<float> expected = {largest_code(), even, -even, low, high};
    EXPECT_EQ(round_trip(block), expected) << "between " << low << " and " << high;
  }
}

TEST_P(RowCodes, AreOffByNoMoreThanHalfAStep) {
  for (const float magnitude : {1e-30f, 1e-3f, 1.0f, 7e4f, 1e37f}) {
    Tensor x = random_tensor({4, 261}, DType::kF32, 3);
    for (float& value : x.span<float>()) value *= magnitude;
    const Tensor y = round_trip(x);
    for (int64_t r = 0; r < 4; ++r) {
      for (int64_t begin = 0; begin < 261; begin += kRowCodeBlock) {
        const int64_t end = std::min<int64_t>(begin + kRowCodeBlock, 261);
        expect_within_half_a_step({x.row<float>(r) + begin, x.row<float>(r) + end}, y.row<float>(r) + begin);
      }
    }
  }
}

TEST_P(RowCodes, GiveZerosForZerosAndForWhatIsTooSmallToScale) {
  for (const float value : {0.0f, -0.0f, FLT_TRUE_MIN, -FLT_TRUE_MIN, FLT_MIN, -1e-36f}) {
    for (const float decoded : round_trip(std::vector<float>(130, value))) EXPECT_EQ(decoded, 0.0f) << value;
  }
}

TEST_P(RowCodes, KeepTheSmallestAndTheLargestMaximaFinite) {
  for (const float maximum : {0x1p-116f, FLT_MAX, std::nextafter(FLT_MAX, 0.0f), FLT_MAX / 3}) {
    const std::vector<float> y = round_trip({maximum, -maximum, FLT_TRUE_MIN, 0.0f});
    EXPECT_NEAR(y[0] / maximum, 1.0f, 1e-6f);
    EXPECT_NEAR(y[1] / maximum, -1.0f, 1e-6f);
    EXPECT_EQ(y[2], 0.0f);
    EXPECT_EQ(y[3], 0.0f);
  }
}

TEST_P(RowCodes, TurnABlockWithANanOrAnInfinityIntoNansAndLeaveTheOthers) {
  for (const float poison : {kNan, -kNan, kUnbounded, -kUnbounded}) {
    for (const size_t position : {size_t{128}, size_t{255}, size_t{200}}) {
      std::vector<float> values(300, largest_code());
      values[position] = poison;
      on_each_isa([&] {
        const std::vector<float> y = round_trip(values);
        for (size_t i = 0; i < y.size(); ++i) {
          if (i / kRowCodeBlock == 1) {
            EXPECT_TRUE(std::isnan(y[i])) << i;
          } else {
            EXPECT_EQ(y[i], largest_code()) << i;
          }
        }
      });
    }
  }
}

TEST_P(RowCodes, HaveTheSameBitsOnEveryInstructionSetAndForAnyNumberOfThreads) {
  const Tensor x = random_tensor({611, 261}, DType::kF32, 8);
  const Tensor expected = encoded(x);
  const Tensor expected_values = decoded(expected, 261);
  ThreadPool workers(3);
  Stream stream(workers);
  on_each_isa([&] {
    Tensor coded = Tensor::empty(expected.shape(), DType::kU8);
    Tensor values = Tensor::empty(x.shape(), DType::kF32);
    encode_rows(x, GetParam(), coded, stream);
    decode_rows(coded, GetParam(), values, stream);
    EXPECT_TRUE(same_bits(coded, expected));
    EXPECT_TRUE(same_bits(values, expected_values));
  });
}

TEST_P(RowCodes, DecodeListedRowsInTheirOrder) {
  const Tensor coded = encoded(random_tensor({4, 37}, DType::kF32, 9));
  const Tensor all = decoded(coded, 37);
  Tensor listed = Tensor::empty({3, 37}, DType::kF32);
  decode_listed_rows(coded, index_tensor({3, 0, 3}), GetParam(), listed, stream_);
  EXPECT_TRUE(same_bits(listed.at(0), all.at(3)));
  EXPECT_TRUE(same_bits(listed.at(1), all.at(0)));
  EXPECT_TRUE(same_bits(listed.at(2), all.at(3)));
}

TEST_P(RowCodes, TakeNoRowsAtAll) {
  EXPECT_EQ(round_trip(Tensor::empty({0, 37}, DType::kF32)).dim(0), 0);
}

}  // namespace
}  // namespace skipper
