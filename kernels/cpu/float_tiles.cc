#include "kernels/cpu/float_tiles.h"

#include <glog/logging.h>

#include "kernels/cpu/simd.h"

namespace skipper::cpu {
namespace {

// Dense products leave register room for the weights of a chunk and one broadcast; one to three rows take many panels instead,
// whose independent sums hide the latency of the multiply-add.
constexpr int panels_for_wide_registers(int num_rows, int max_rows) {
  if (num_rows > max_rows) return 0;
  if (num_rows <= 3) return 8;
  return num_rows <= 6 ? 4 : 2;
}

constexpr int panels_for_narrow_registers(Isa isa, int num_rows) {
  if (isa == Isa::kPortable) return num_rows == 1 ? 2 : (num_rows <= 3 ? 1 : 0);
  if (num_rows == 1) return 4;
  if (num_rows <= 2) return 2;
  return num_rows <= 5 ? 1 : 0;
}

// Nearest BF16 of each lane, ties to even, as the upper half of its word: the same codes on every instruction set.
template <int kWidth>
[[gnu::always_inline]] inline typename Lanes<kWidth>::WordPart rounded_to_bf16(const typename Lanes<kWidth>::Part& part) {
  using WordPart = typename Lanes<kWidth>::WordPart;
  const WordPart words = reinterpret_cast<WordPart>(part);
  const WordPart rounded = words + 0x7fffu + ((words >> 16) & 1u);
  const WordPart quiet_nan = words | 0x400000u;
  return ((words & 0x7fffffffu) > 0x7f800000u ? quiet_nan : rounded) & 0xffff0000u;
}

// visit(lanes, index, count) for each sixteen elements of a row; the last `count` may be smaller, its other lanes are 0.
template <int kWidth, typename Visit>
[[gnu::always_inline]] inline void for_each_sixteen(const float* x, int64_t size, const Visit& visit) {
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) visit(Lanes<kWidth>::load(x + i), i, int64_t{kLanes});
  if (i < size) visit(Lanes<kWidth>::load_first(x + i, size - i), i, size - i);
}

// One float per word, rounded to BF16 if asked for; zero up to `num_words`.
template <int kWidth, ActivationFormat kActivations>
[[gnu::always_inline]] inline void convert_to_floats(const float* x, int64_t size, uint32_t* words, int64_t num_words) {
  float* target = reinterpret_cast<float*>(words);
  for_each_sixteen<kWidth>(x, size, [&](Lanes<kWidth> v, int64_t i, int64_t count) __attribute__((always_inline)) {
    if constexpr (kActivations == ActivationFormat::kBF16) {
      for (auto& part : v.part) part = reinterpret_cast<typename Lanes<kWidth>::Part>(rounded_to_bf16<kWidth>(part));
    }
    if (count == kLanes) return v.store(target + i);
    v.store_first(target + i, count);
  });
  for (int64_t i = size; i < num_words; ++i) target[i] = 0.0f;
}

// Two BF16 per word, the first in the lower half.
template <int kWidth>
[[gnu::always_inline]] inline void convert_to_pairs(const float* x, int64_t size, uint32_t* words) {
  using HalfPart = typename Lanes<kWidth>::HalfPart;
  for_each_sixteen<kWidth>(x, size, [&](const Lanes<kWidth>& v, int64_t i, int64_t count) __attribute__((always_inline)) {
    uint16_t halves[kLanes];
    for (int part = 0; part < Lanes<kWidth>::kParts; ++part) {
      const auto half = __builtin_convertvector(rounded_to_bf16<kWidth>(v.part[part]) >> 16, HalfPart);
      __builtin_memcpy(halves + part * kWidth, &half, sizeof(half));
    }
    if (count == kLanes) {
      __builtin_memcpy(words + i / 2, halves, sizeof(halves));
    } else {
      for (int64_t pair = 0; pair < (count + 1) / 2; ++pair) __builtin_memcpy(words + i / 2 + pair, halves + 2 * pair, 4);
    }
  });
}

template <int kWidth, int kRows, int kPanels>
[[gnu::always_inline]] inline void store_tile(const Lanes<kWidth> (&sums)[kRows][kPanels], float* target) {
  for (int r = 0; r < kRows; ++r) {
    for (int p = 0; p < kPanels; ++p) sums[r][p].store(target + r * kSumsStride + p * kPanelRows);
  }
}

template <int kWidth, int kRows, int kPanels>
[[gnu::always_inline]] inline void clear_tile(Lanes<kWidth> (&sums)[kRows][kPanels]) {
  for (int r = 0; r < kRows; ++r) {
    for (int p = 0; p < kPanels; ++p) sums[r][p] = Lanes<kWidth>::zero();
  }
}

template <int kPanels>
struct PanelPointers {
  const uint8_t* panel[kPanels];
  [[gnu::always_inline]] explicit PanelPointers(const PanelView& weights) {
    for (int p = 0; p < kPanels; ++p) panel[p] = weights.codes + p * weights.panel_bytes;
  }

  // Asks for the same chunks of the panels behind these, which are most often multiplied next, in the second-level cache: the
  // prefetchers of the CPU stop at every page, and in the first-level cache the lines would drive out those in use.
  [[gnu::always_inline]] void prefetch_behind(int64_t num_bytes, int64_t offset) const {
    for (int p = 0; p < kPanels; ++p) __builtin_prefetch(panel[p] + kPanels * num_bytes + offset, 0, 2);
  }
};

// sums[r][p] += x[r] · w[p] for one input k of all rows.
template <int kWidth, int kRows, int kPanels>
[[gnu::always_inline]] inline void add_products(const uint32_t* x, const Lanes<kWidth> (&w)[kPanels],
                                                Lanes<kWidth> (&sums)[kRows][kPanels]) {
  for (int r = 0; r < kRows; ++r) {
    float value;
    __builtin_memcpy(&value, x + r, sizeof(value));
    const Lanes<kWidth> broadcast = Lanes<kWidth>::broadcast(value);
    for (int p = 0; p < kPanels; ++p) sums[r][p].add_product(w[p], broadcast);
  }
}

template <int kWidth, int kRows, int kPanels>
[[gnu::always_inline]] inline void multiply_f32(const TileOperands& operands) {
  Lanes<kWidth> sums[kRows][kPanels];
  clear_tile(sums);
  const PanelPointers<kPanels> weights(operands.weights);
  const uint32_t* x = operands.activations;
  const int64_t num_bytes = operands.weights.panel_bytes;
  for (int64_t offset = 0; offset < num_bytes; offset += kPanelRows * 4, x += kRows) {
    Lanes<kWidth> w[kPanels];
    for (int p = 0; p < kPanels; ++p) w[p] = Lanes<kWidth>::load(reinterpret_cast<const float*>(weights.panel[p] + offset));
    add_products(x, w, sums);
  }
  store_tile(sums, operands.sums);
}

// One of the two inputs of a chunk [row 16][k 2] bf16, widened.
template <int kWidth, int kInput>
[[gnu::always_inline]] inline Lanes<kWidth> load_widened(const uint8_t* chunk) {
  using WordPart = typename Lanes<kWidth>::WordPart;
  Lanes<kWidth> result;
  for (int i = 0; i < Lanes<kWidth>::kParts; ++i) {
    WordPart pair;
    __builtin_memcpy(&pair, chunk + i * int{sizeof(pair)}, sizeof(pair));
    result.part[i] = reinterpret_cast<typename Lanes<kWidth>::Part>(kInput == 0 ? pair << 16 : pair & 0xffff0000u);
  }
  return result;
}

template <int kWidth, int kRows, int kPanels>
[[gnu::always_inline]] inline void multiply_widened(const TileOperands& operands) {
  Lanes<kWidth> sums[kRows][kPanels];
  clear_tile(sums);
  const PanelPointers<kPanels> weights(operands.weights);
  const uint32_t* x = operands.activations;
  const int64_t num_bytes = operands.weights.panel_bytes;
  for (int64_t offset = 0; offset < num_bytes; offset += kPanelRows * 4, x += 2 * kRows) {
    Lanes<kWidth> w[kPanels];
    for (int p = 0; p < kPanels; ++p) w[p] = load_widened<kWidth, 0>(weights.panel[p] + offset);
    add_products(x, w, sums);
    for (int p = 0; p < kPanels; ++p) w[p] = load_widened<kWidth, 1>(weights.panel[p] + offset);
    add_products(x + kRows, w, sums);
  }
  store_tile(sums, operands.sums);
}

// Up to this many rows wait for memory: they read one panel after the other, a single stream that the CPU fetches ahead by
// itself. Measured: 58 GB/s of BF16 for one row, where four panels at once with prefetches reach 48.
constexpr int kMostRowsOfOneStream = 6;

#if defined(__x86_64__)
// vdpbf16ps: products of pairs are added without being rounded to BF16, denormals count as zero.
template <int kRows, int kPanels>
[[gnu::always_inline]] inline void multiply_pairs(const TileOperands& operands) {
  typedef short Shorts __attribute__((vector_size(64)));
  using Ints = Registers<16>::Ints;
  Lanes<16> sums[kRows][kPanels];
  clear_tile(sums);
  const PanelPointers<kPanels> weights(operands.weights);
  const uint32_t* x = operands.activations;
  const int64_t num_bytes = operands.weights.panel_bytes;
  for (int64_t offset = 0; offset < num_bytes; offset += kPanelRows * 4, x += kRows) {
    Shorts w[kPanels];
    for (int p = 0; p < kPanels; ++p) __builtin_memcpy(&w[p], weights.panel[p] + offset, sizeof(w[p]));
    if constexpr (kRows > kMostRowsOfOneStream) weights.prefetch_behind(num_bytes, offset);
    for (int r = 0; r < kRows; ++r) {
      const Ints pair = static_cast<int>(x[r]) - Ints{};
      for (int p = 0; p < kPanels; ++p) {
        Registers<16>::Floats& sum = sums[r][p].part[0];
        sum = __builtin_ia32_dpbf16ps_v16sf(sum, reinterpret_cast<Shorts>(pair), w[p]);
      }
    }
  }
  store_tile(sums, operands.sums);
}
#endif

// f32 weights: one input per word and chunk.
template <ActivationFormat kActivations>
struct F32Tiles {
  static constexpr bool has_code_for(Isa isa) { return isa == Isa::kPortable || isa == Isa::kAvx2 || isa == Isa::kAvx512; }

  static constexpr int panels_at_once(Isa isa, int num_rows) {
    return isa >= Isa::kAvx512 ? panels_for_wide_registers(num_rows, 13) : panels_for_narrow_registers(isa, num_rows);
  }

  template <Isa kIsa>
  static int64_t words_per_row(const RowShape& shape) {
    return shape.num_columns;
  }

  template <Isa kIsa>
  [[gnu::always_inline]] static void convert_row(const RowShape& shape, const float* x, uint32_t* words) {
    convert_to_floats<register_width(kIsa), kActivations>(x, shape.num_columns, words, shape.num_columns);
  }

  template <Isa kIsa, int kRows, int kPanels>
  [[gnu::always_inline]] static void multiply(const TileOperands& operands) {
    multiply_f32<register_width(kIsa), kRows, kPanels>(operands);
  }
};

// bf16 weights, activations as FP32 or, with kBF16, rounded: pairs where vdpbf16ps takes them, else floats that hold BF16 values.
template <ActivationFormat kActivations>
struct Bf16Tiles {
  static constexpr bool multiplies_pairs(Isa isa) {
    return kActivations == ActivationFormat::kBF16 && isa == Isa::kAvx512Bf16;
  }

  static constexpr bool has_code_for(Isa isa) {
    return isa == Isa::kPortable || isa == Isa::kAvx2 || isa == Isa::kAvx512 || multiplies_pairs(isa);
  }

  static constexpr int panels_at_once(Isa isa, int num_rows) {
    if (multiplies_pairs(isa) && num_rows <= kMostRowsOfOneStream) return 1;
    if (isa >= Isa::kAvx512) return panels_for_wide_registers(num_rows, multiplies_pairs(isa) ? 13 : 12);
    return panels_for_narrow_registers(isa, num_rows);
  }

  template <Isa kIsa>
  static int64_t words_per_row(const RowShape& shape) {
    const int64_t num_pairs = (shape.num_columns + 1) / 2;
    return multiplies_pairs(kIsa) ? num_pairs : 2 * num_pairs;
  }

  template <Isa kIsa>
  [[gnu::always_inline]] static void convert_row(const RowShape& shape, const float* x, uint32_t* words) {
    if constexpr (multiplies_pairs(kIsa)) {
      convert_to_pairs<register_width(kIsa)>(x, shape.num_columns, words);
    } else {
      const int64_t num_words = words_per_row<kIsa>(shape);
      convert_to_floats<register_width(kIsa), kActivations>(x, shape.num_columns, words, num_words);
    }
  }

  template <Isa kIsa, int kRows, int kPanels>
  [[gnu::always_inline]] static void multiply(const TileOperands& operands) {
#if defined(__x86_64__)
    if constexpr (multiplies_pairs(kIsa)) return multiply_pairs<kRows, kPanels>(operands);
#endif
    multiply_widened<register_width(kIsa), kRows, kPanels>(operands);
  }
};

}  // namespace

const TilePolicy& float_tile_policy(WeightKind kind, ActivationFormat activations, Isa isa) {
  CHECK(activations != ActivationFormat::kInt8) << "float weights meet float activations";
  const bool rounds = activations == ActivationFormat::kBF16;
  if (kind == WeightKind::kBF16) {
    return rounds ? tile_policy<Bf16Tiles<ActivationFormat::kBF16>>(isa) : tile_policy<Bf16Tiles<ActivationFormat::kF32>>(isa);
  }
  CHECK(kind == WeightKind::kF32);
  return rounds ? tile_policy<F32Tiles<ActivationFormat::kBF16>>(isa) : tile_policy<F32Tiles<ActivationFormat::kF32>>(isa);
}

}  // namespace skipper::cpu
