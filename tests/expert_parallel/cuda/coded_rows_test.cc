#include "expert_parallel/cuda/coded_rows.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cfloat>
#include <limits>
#include <numeric>
#include <vector>

#include "tests/kernels/cuda/gpu_test.h"

namespace skipper::cuda {
namespace {

constexpr RowCode kCodes[] = {RowCode::kInt8, RowCode::kE4m3};

class DeviceCodedRows : public GpuTest {
 protected:
  // Rows of every size of value, and blocks that are all zero, tiny, huge or no numbers.
  static Tensor rows_of_all_kinds(int64_t num_rows, int64_t width) {
    Tensor x = random_f32({num_rows, width}, 3);
    for (int64_t row = 0; row < num_rows; ++row) {
      const float scale = std::exp2(static_cast<float>(row * 17 % 200 - 120));
      float* values = x.row<float>(row);
      std::transform(values, values + width, values, [=](float value) { return row % 7 == 6 ? 0.0f : value * scale; });
      if (row % 5 == 4) values[width / 2] = row % 2 == 0 ? std::numeric_limits<float>::quiet_NaN() : FLT_MAX;
    }
    return x;
  }
  // What the CPU's codes give, rounded to BF16.
  static Tensor through_codes_of_cpu(const Tensor& x, RowCode code) {
    Stream host;
    Tensor coded = Tensor::empty({x.dim(0), coded_row_bytes(x.dim(1))}, DType::kU8);
    Tensor decoded = Tensor::empty(x.shape(), DType::kF32);
    encode_rows(x, code, coded, host);
    decode_rows(coded, code, decoded, host);
    Tensor rounded = Tensor::empty(x.shape(), DType::kBF16);
    std::ranges::transform(decoded.span<float>(), rounded.span<bf16>().begin(), [](float value) { return bf16(value); });
    return rounded;
  }
  static void expect_equal(const Tensor& actual, const Tensor& expected) {
    for (int64_t i = 0; i < expected.num_elements(); ++i) {
      const bf16 a = actual.data<bf16>()[i], e = expected.data<bf16>()[i];
      // Zeros of either sign: a block too small for codes keeps no signs on the GPU.
      const float actual_value = static_cast<float>(a), expected_value = static_cast<float>(e);
      ASSERT_TRUE(actual_value == expected_value || (std::isnan(actual_value) && std::isnan(expected_value)))
          << i << ": " << static_cast<float>(a) << " instead of " << static_cast<float>(e);
    }
  }
  Tensor integers(const std::vector<int32_t>& values) {
    Tensor host = Tensor::empty({static_cast<int64_t>(values.size())}, DType::kI32);
    std::ranges::copy(values, host.span<int32_t>().begin());
    return on_gpu(host);
  }
};

TEST_F(DeviceCodedRows, RoundAsTheCpusCodesDo) {
  for (const RowCode code : kCodes) {
    for (const int64_t width : {4, 128, 132, 256, 2048}) {
      for (const int64_t num_rows : {0, 1, 67}) {
        const Tensor x = rows_of_all_kinds(num_rows, width);
        Tensor rows = poisoned(x.shape(), DType::kBF16);
        round_through_codes(on_gpu(x), code, rows, stream());
        expect_equal(on_host(rows), through_codes_of_cpu(x, code));
      }
    }
  }
}

TEST_F(DeviceCodedRows, ArriveAsTheyWereRounded) {
  constexpr int64_t kWidth = 260, kTokens = 9, kCapacity = 5;
  const Tensor x = rows_of_all_kinds(kTokens, kWidth), gpu_x = on_gpu(x);
  // Two destinations: the second wants more than it has room for.
  Tensor num_rows = integers({3, 7});
  Tensor token_of_row = integers({1, 4, 8, -1, -1, 0, 2, 3, 5, 7});
  Tensor unused = integers({0});
  const OutgoingOutput plan{num_rows, unused, token_of_row, unused, unused, unused};
  for (const RowCode code : kCodes) {
    Tensor coded = poisoned({2 * kCapacity, coded_row_bytes(kWidth)}, DType::kU8);
    pack_coded_rows(gpu_x, plan, code, coded, stream());
    Tensor rows = poisoned({2 * kCapacity, kWidth}, DType::kBF16);
    decode_arrived_rows({coded, num_rows, code}, rows, stream());
    const Tensor arrived = on_host(rows), expected = through_codes_of_cpu(x, code);
    const std::vector<int64_t> tokens = {1, 4, 8, -1, -1, 0, 2, 3, 5, 7};
    for (size_t slot = 0; slot < tokens.size(); ++slot) {
      const auto at = static_cast<int64_t>(slot);
      if (tokens[slot] < 0) continue;
      expect_equal(arrived.slice(at, at + 1), expected.slice(tokens[slot], tokens[slot] + 1));
    }
    const uint16_t* untouched = reinterpret_cast<const uint16_t*>(arrived.row<bf16>(3));
    EXPECT_EQ(std::count(untouched, untouched + 2 * kWidth, 0xffff), 2 * kWidth);
  }
}

}  // namespace
}  // namespace skipper::cuda
