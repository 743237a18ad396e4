#include "kernels/row_codes.h"

#include <cfloat>
#include <limits>

#include "kernels/cpu/integer_activations.h"
#include "kernels/cpu/integer_codes.h"
#include "kernels/cpu/row_pieces.h"
#include "kernels/cpu/simd.h"

namespace skipper::cpu {
namespace {

// Below it the reciprocal of an e4m3 scale overflows.
constexpr float kSmallestCodedMaximum = 0x1p-116f;

// A code in the lowest byte of each word, from values within the range of the codes.
template <RowCode kCode>
struct CodeArithmetic;

template <>
struct CodeArithmetic<RowCode::kInt8> {
  static constexpr float kLargest = 127.0f;
  static constexpr float kLargestScale = 0x810203p98f;  // FLT_MAX / 127 rounded down, or FLT_MAX would decode to infinity

  // The float 1.5 · 2^23 + code has the code in its lowest byte, in two's complement, rounded to nearest even.
  template <int kWidth>
  [[gnu::always_inline]] static typename Registers<kWidth>::Words encode(const typename Registers<kWidth>::Floats& value) {
    return reinterpret_cast<typename Registers<kWidth>::Words>(value + 12582912.0f);
  }

  template <int kWidth>
  [[gnu::always_inline]] static typename Registers<kWidth>::Floats decode(const typename Registers<kWidth>::Ints& byte) {
    const auto code = (byte << 24) >> 24;
    return __builtin_convertvector(code, typename Registers<kWidth>::Floats);
  }
};

// Exponent bias 7 against 127 of a float, 3 bits of mantissa against 23. Below 2^-6 codes count steps of 2^-9.
template <>
struct CodeArithmetic<RowCode::kE4m3> {
  static constexpr float kLargest = 448.0f;
  static constexpr float kLargestScale = FLT_MAX / 448.0f;  // exact
  static constexpr int32_t kSmallestNormal = (127 - 6) << 23;
  static constexpr int32_t kBiasDifference = (127 - 7) << 3;

  template <int kWidth>
  [[gnu::always_inline]] static typename Registers<kWidth>::Words encode(const typename Registers<kWidth>::Floats& value) {
    using Ints = typename Registers<kWidth>::Ints;
    using Words = typename Registers<kWidth>::Words;
    using Floats = typename Registers<kWidth>::Floats;
    const Ints magnitude = reinterpret_cast<Ints>(value) & 0x7fffffff;
    const Ints normal = ((magnitude + 0x7ffff + ((magnitude >> 20) & 1)) >> 20) - kBiasDifference;
    // The float 2^14 + value has the value's steps of 2^-9 in its lowest bits, rounded to nearest even.
    const Ints shifted = reinterpret_cast<Ints>(reinterpret_cast<Floats>(magnitude) + 16384.0f);
    const Ints code = magnitude < kSmallestNormal ? shifted & 0xf : normal;
    return reinterpret_cast<Words>(code) | ((reinterpret_cast<Words>(value) >> 24) & 0x80u);
  }

  template <int kWidth>
  [[gnu::always_inline]] static typename Registers<kWidth>::Floats decode(const typename Registers<kWidth>::Ints& byte) {
    using Ints = typename Registers<kWidth>::Ints;
    using Floats = typename Registers<kWidth>::Floats;
    const Ints code = byte & 0x7f;
    const Ints normal = (code + kBiasDifference) << 20;
    const Ints subnormal = reinterpret_cast<Ints>(__builtin_convertvector(code, Floats) * 0x1p-9f);
    const Ints number = code < 8 ? subnormal : normal;
    const Ints magnitude = code == 0x7f ? 0x7fc00000 - Ints{} : number;
    return reinterpret_cast<Floats>(magnitude | ((byte & 0x80) << 24));
  }
};

struct BlockScale {
  float scale = 0;
  float reciprocal = 0;
};

template <int kWidth, RowCode kCode>
[[gnu::always_inline]] inline BlockScale scale_of_block(const float* x, int64_t size) {
  using Arithmetic = CodeArithmetic<kCode>;
  const auto maximum = __builtin_bit_cast(float, largest_magnitude_bits<kWidth>(x, size));
  if (!(maximum <= FLT_MAX)) return {std::numeric_limits<float>::quiet_NaN(), 0};
  if (maximum < kSmallestCodedMaximum) return {};
  const float scale = maximum / Arithmetic::kLargest;
  return {scale < Arithmetic::kLargestScale ? scale : Arithmetic::kLargestScale, Arithmetic::kLargest / maximum};
}

template <RowCode kCode>
struct EncodeKernel {
  template <int kWidth>
  [[gnu::always_inline]] static void run(const float* const& x, const int64_t& row_size, uint8_t* const& coded,
                                         const int64_t& num_rows) {
    for (int64_t row = 0; row < num_rows; ++row) {
      encode_row<kWidth>(x + row * row_size, row_size, coded + row * coded_row_bytes(row_size));
    }
  }

  template <int kWidth>
  [[gnu::always_inline]] static void encode_row(const float* x, int64_t row_size, uint8_t* codes) {
    uint8_t* scales = codes + row_size;
    for (int64_t begin = 0; begin < row_size; begin += kRowCodeBlock, scales += sizeof(float)) {
      const int64_t size = row_size - begin < kRowCodeBlock ? row_size - begin : kRowCodeBlock;
      const BlockScale scale = scale_of_block<kWidth, kCode>(x + begin, size);
      encode_block<kWidth>(x + begin, size, scale.reciprocal, codes + begin);
      __builtin_memcpy(scales, &scale.scale, sizeof(float));
    }
  }

  template <int kWidth>
  [[gnu::always_inline]] static void encode_block(const float* x, int64_t size, float reciprocal, uint8_t* codes) {
    int64_t i = 0;
    for (; i + kLanes <= size; i += kLanes) encode_lanes(Lanes<kWidth>::load(x + i), reciprocal, codes + i);
    if (i == size) return;
    uint8_t last[kLanes];
    encode_lanes(Lanes<kWidth>::load_first(x + i, size - i), reciprocal, last);
    __builtin_memcpy(codes + i, last, static_cast<size_t>(size - i));
  }

  template <int kWidth>
  [[gnu::always_inline]] static void encode_lanes(const Lanes<kWidth>& values, float reciprocal, uint8_t* codes) {
    for (int part = 0; part < Lanes<kWidth>::kParts; ++part) {
      store_low_bytes<kWidth>(CodeArithmetic<kCode>::template encode<kWidth>(values.part[part] * reciprocal),
                              codes + part * kWidth);
    }
  }
};

struct CodedRows {
  const uint8_t* codes;
  const int32_t* row_index;  // null: row r is r
  int64_t row_size;
  float* y;
};

template <RowCode kCode>
struct DecodeKernel {
  template <int kWidth>
  [[gnu::always_inline]] static void run(const CodedRows& rows, const int64_t& begin, const int64_t& end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t source = rows.row_index != nullptr ? rows.row_index[row] : row;
      decode_row<kWidth>(rows.codes + source * coded_row_bytes(rows.row_size), rows.row_size, rows.y + row * rows.row_size);
    }
  }

  template <int kWidth>
  [[gnu::always_inline]] static void decode_row(const uint8_t* codes, int64_t row_size, float* y) {
    const uint8_t* scales = codes + row_size;
    for (int64_t begin = 0; begin < row_size; begin += kRowCodeBlock, scales += sizeof(float)) {
      const int64_t size = row_size - begin < kRowCodeBlock ? row_size - begin : kRowCodeBlock;
      float scale;
      __builtin_memcpy(&scale, scales, sizeof(scale));
      decode_block<kWidth>(codes + begin, size, scale, y + begin);
    }
  }

  template <int kWidth>
  [[gnu::always_inline]] static void decode_block(const uint8_t* codes, int64_t size, float scale, float* y) {
    int64_t i = 0;
    for (; i + kLanes <= size; i += kLanes) decode_lanes<kWidth>(codes + i, scale).store(y + i);
    if (i == size) return;
    uint8_t last[kLanes] = {};
    __builtin_memcpy(last, codes + i, static_cast<size_t>(size - i));
    decode_lanes<kWidth>(last, scale).store_first(y + i, size - i);
  }

  template <int kWidth>
  [[gnu::always_inline]] static Lanes<kWidth> decode_lanes(const uint8_t* codes, float scale) {
    Lanes<kWidth> values;
    for (int part = 0; part < Lanes<kWidth>::kParts; ++part) {
      values.part[part] = CodeArithmetic<kCode>::template decode<kWidth>(load_bytes<kWidth>(codes + part * kWidth)) * scale;
    }
    return values;
  }
};

template <RowCode kCode>
void encode(const Tensor& x, Tensor& coded, ThreadPool& workers) {
  const int64_t row_size = x.dim(1), coded_size = coded.dim(1);
  const float* source = x.data<float>();
  uint8_t* target = coded.data<uint8_t>();
  // Each value is read twice, for the maximum and for its code.
  for_row_pieces(workers, {x.dim(0), 2 * row_size * 4 + coded_size}, [=](int64_t begin, int64_t end) {
    run_on_best_isa<EncodeKernel<kCode>>(source + begin * row_size, row_size, target + begin * coded_size, end - begin);
  });
}

template <RowCode kCode>
void decode(const CodedRows& rows, int64_t num_rows, ThreadPool& workers) {
  for_row_pieces(workers, {num_rows, coded_row_bytes(rows.row_size) + rows.row_size * 4}, [&](int64_t begin, int64_t end) {
    run_on_best_isa<DecodeKernel<kCode>>(rows, begin, end);
  });
}

}  // namespace

void encode_rows(const Tensor& x, RowCode code, Tensor& coded, ThreadPool& workers) {
  if (code == RowCode::kInt8) return encode<RowCode::kInt8>(x, coded, workers);
  encode<RowCode::kE4m3>(x, coded, workers);
}

void decode_rows(const Tensor& coded, const int32_t* row_index, RowCode code, Tensor& y, ThreadPool& workers) {
  const CodedRows rows{coded.data<uint8_t>(), row_index, y.dim(1), y.data<float>()};
  if (code == RowCode::kInt8) return decode<RowCode::kInt8>(rows, y.dim(0), workers);
  decode<RowCode::kE4m3>(rows, y.dim(0), workers);
}

}  // namespace skipper::cpu
