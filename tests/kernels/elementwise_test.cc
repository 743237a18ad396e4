#include "kernels/elementwise.h"

#include <bit>
#include <limits>
#include <utility>

#include "kernels/cpu/instruction_set.h"
#include "tests/kernels/random_tensors.h"

namespace skipper {
namespace {

TEST(Add, AddsInPlaceFromBothElementTypes) {
  Stream stream;
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const int64_t count : {0, 1, 7, 16, 131}) {
      const Tensor x = random_tensor({count}, dtype, 1);
      Tensor y = random_tensor({count}, DType::kF32, 2);
      std::vector<double> expected = as_doubles(y);
      for (size_t i = 0; i < expected.size(); ++i) expected[i] += as_doubles(x)[i];
      add(x, y, stream);
      expect_close(y, expected, 1e-7);
    }
  }
}

TEST(Convert, RoundsFloatToBf16AndWidensItExactly) {
  Stream stream;
  const Tensor x = random_tensor({5, 13}, DType::kF32, 3);
  Tensor half = Tensor::empty({5, 13}, DType::kBF16), back = Tensor::empty({5, 13}, DType::kF32);
  convert(x, half, stream);
  convert(half, back, stream);
  for (int64_t i = 0; i < x.num_elements(); ++i) {
    EXPECT_EQ(half.data<bf16>()[i].bits, bf16(x.data<float>()[i]).bits);
    EXPECT_EQ(back.data<float>()[i], static_cast<float>(bf16(x.data<float>()[i])));
  }
}

TEST(Add, HasTheSameBitsOnAnyNumberOfThreads) {
  const Tensor x = random_tensor({100'003}, DType::kBF16, 6);
  expect_same_bits_on_any_number_of_threads([&](Stream& stream) {
    Tensor y = random_tensor({100'003}, DType::kF32, 7);
    add(x, y, stream);
    return y;
  });
}

// Every upper half with lower halves around the tie, through every vector width.
TEST(Convert, RoundsEveryKindOfFloatAsBf16Does) {
  Stream stream;
  std::vector<uint32_t> words;
  for (uint32_t upper = 0; upper < 0x10000u; ++upper) {
    for (const uint32_t lower : {0x0000u, 0x0001u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) words.push_back(upper << 16 | lower);
  }
  words.pop_back();  // a count that is no multiple of a vector
  const Tensor x = Tensor::borrow_const(words.data(), {static_cast<int64_t>(words.size())}, DType::kF32);
  for (const cpu::Isa isa : cpu::available_isas()) {
    const cpu::IsaOverride chosen(isa);
    Tensor y = Tensor::empty(x.shape(), DType::kBF16);
    convert(x, y, stream);
    for (size_t i = 0; i < words.size(); ++i) {
      ASSERT_EQ(y.data<bf16>()[i].bits, bf16(std::bit_cast<float>(words[i])).bits) << std::hex << words[i] << " " << name_of(isa);
    }
  }
}

TEST(Convert, HasTheSameBitsOnAnyNumberOfThreads) {
  for (const auto& [from, to] : {std::pair{DType::kF32, DType::kBF16}, {DType::kBF16, DType::kF32}, {DType::kF16, DType::kF32}}) {
    const Tensor values = random_tensor({100'003}, from == DType::kF16 ? DType::kBF16 : from, 8);
    const Tensor x = Tensor::borrow_const(values.bytes(), values.shape(), from);
    expect_same_bits_on_any_number_of_threads([&, to = to](Stream& stream) {
      Tensor y = Tensor::empty(x.shape(), to);
      convert(x, y, stream);
      return y;
    });
  }
}

TEST(Convert, WidensEveryKindOfHalfFloat) {
  Stream stream;
  const uint16_t bits[] = {0x0000, 0x8000, 0x3c00, 0xc000, 0x0001, 0x83ff, 0x0400, 0x7bff, 0x7c00, 0xfc00, 0x3555};
  const double expected[] = {0.0,
                             -0.0,
                             1.0,
                             -2.0,
                             std::ldexp(1.0, -24),
                             -1023 * std::ldexp(1.0, -24),
                             std::ldexp(1.0, -14),
                             65504.0,
                             std::numeric_limits<double>::infinity(),
                             -std::numeric_limits<double>::infinity(),
                             0.333251953125};
  const int64_t count = std::size(bits);
  Tensor y = Tensor::empty({count}, DType::kF32);
  convert(Tensor::borrow_const(bits, {count}, DType::kF16), y, stream);
  for (int64_t i = 0; i < count; ++i) {
    EXPECT_EQ(double{y.data<float>()[i]}, expected[i]) << i;
    EXPECT_EQ(std::signbit(y.data<float>()[i]), std::signbit(expected[i])) << i;
  }
  const uint16_t nan = 0x7e01;
  Tensor one = Tensor::empty({1}, DType::kF32);
  convert(Tensor::borrow_const(&nan, {1}, DType::kF16), one, stream);
  EXPECT_TRUE(std::isnan(one.data<float>()[0]));
}

TEST(Transpose, SwapsTheLastTwoAxes) {
  Stream stream;
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const Shape& shape : {Shape{0, 3, 2}, Shape{1, 1, 1}, Shape{2, 5, 3}, Shape{3, 67, 33}, Shape{1, 0, 4}}) {
      const Tensor x = random_tensor(shape, dtype, 4);
      Tensor y = Tensor::empty({shape[0], shape[2], shape[1]}, dtype);
      transpose(x, y, stream);
      const std::vector<double> before = as_doubles(x), after = as_doubles(y);
      for (int64_t i = 0; i < x.num_elements(); ++i) {
        const int64_t matrix = i / (shape[1] * shape[2]), row = i / shape[2] % shape[1], column = i % shape[2];
        EXPECT_EQ(after[static_cast<size_t>((matrix * shape[2] + column) * shape[1] + row)], before[static_cast<size_t>(i)]);
      }
    }
  }
}

TEST(Transpose, WorksOnPlainMatrices) {
  Stream stream;
  const Tensor x = random_tensor({2, 3}, DType::kF32, 5);
  Tensor y = Tensor::empty({3, 2}, DType::kF32);
  transpose(x, y, stream);
  EXPECT_EQ(y.row<float>(2)[1], x.row<float>(1)[2]);
}

TEST(Transpose, HasTheSameBitsOnAnyNumberOfThreads) {
  const Tensor x = random_tensor({5, 331, 97}, DType::kF32, 9);
  expect_same_bits_on_any_number_of_threads([&](Stream& stream) {
    Tensor y = Tensor::empty({5, 97, 331}, DType::kF32);
    transpose(x, y, stream);
    return y;
  });
}

}  // namespace
}  // namespace skipper
