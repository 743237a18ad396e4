#include "kernels/cpu/integer_tiles.h"

#include <glog/logging.h>

#include <type_traits>
#include <utility>

#include "kernels/cpu/integer_activations.h"
#include "kernels/cpu/integer_codes.h"
#include "kernels/cpu/integer_dot.h"
#include "kernels/cpu/simd.h"

namespace skipper::cpu {
namespace {

// a · b + c with one rounding everywhere: the portable set asks the C library, a few times per group.
template <int kWidth>
[[gnu::always_inline]] inline typename Registers<kWidth>::Floats rounded_once(const typename Registers<kWidth>::Floats& a,
                                                                             const typename Registers<kWidth>::Floats& b,
                                                                             const typename Registers<kWidth>::Floats& c) {
  if constexpr (kWidth > 4) {
    return fused_multiply_add<kWidth>(a, b, c);
  } else {
    typename Registers<kWidth>::Floats result;
    for (int lane = 0; lane < kWidth; ++lane) result[lane] = __builtin_fmaf(a[lane], b[lane], c[lane]);
    return result;
  }
}

// One register tile. Sums of a group are integers in registers. Of large tiles the sums over groups stay in the first-level
// cache, where they cost one load and one store per group: so twice as many rows share each unpacked code.
template <WeightKind kKind, Isa kIsa, int kRows, int kPanels>
class IntegerTile {
 public:
  [[gnu::always_inline]] explicit IntegerTile(const TileOperands& operands)
      : operands_(operands),
        shape_(operands.weights.shape),
        num_code_words_(num_code_words(shape_)),
        panels_ahead_(kPanels * operands.weights.panel_bytes <= kPrefetchedBytes ? kPanels : 0) {}

  [[gnu::always_inline]] static int64_t num_code_words(const RowShape& shape) {
    return (shape.num_columns + kChunkInputs - 1) / kChunkInputs * kWordsPerChunk;
  }

  [[gnu::always_inline]] void multiply() const {
    Totals totals;
    clear(totals);
    const int64_t num_groups = shape_.num_groups(), chunks_per_group = shape_.group_size / kChunkInputs;
    const int64_t num_chunks = num_code_words_ / kWordsPerChunk;
    for (int64_t group = 0; group < num_groups; ++group) {
      const int64_t begin = group * chunks_per_group;
      const int64_t end = begin + chunks_per_group < num_chunks ? begin + chunks_per_group : num_chunks;
      IntegerSums sums;
      if constexpr (kPrefetches) prefetch_scales(group);
      start_group(group, sums);
      for (int64_t chunk = begin; chunk < end; ++chunk) add_chunk(chunk, sums);
      finish_group(group, sums, totals);
    }
    if constexpr (kTotalsInRegisters) store(totals);
  }

 private:
  static constexpr int kWidth = register_width(kIsa);
  static constexpr int kParts = Lanes<kWidth>::kParts;
  static constexpr ChunkShape kChunk = chunk_shape_of(kKind);
  static constexpr int64_t kChunkInputs = 4 * kChunk.num_quads;
  using Dot = IntegerDot<kIsa, kChunk.num_bits>;
  static constexpr int64_t kWordsPerChunk = kChunk.num_quads * Dot::kWordsPerQuad;
  using Ints = typename Registers<kWidth>::Ints;
  using Floats = typename Registers<kWidth>::Floats;
  using IntegerSums = Ints[kRows][kPanels][kParts];
  static constexpr bool kTotalsInRegisters = kWidth == 16 && kRows * kPanels <= 8;
  struct NoTotals {};
  using Totals = std::conditional_t<kTotalsInRegisters, Lanes<kWidth>[kRows][kPanels], NoTotals>;
  // One panel at a time is a single stream, which the CPU fetches ahead by itself.
  static constexpr bool kPrefetches = kPanels > 1;

  [[gnu::always_inline]] float* sums_of(int row, int panel) const {
    return operands_.sums + row * kSumsStride + panel * kPanelRows;
  }

  [[gnu::always_inline]] void clear(Totals& totals) const {
    for (int r = 0; r < kRows; ++r) {
      for (int p = 0; p < kPanels; ++p) {
        if constexpr (kTotalsInRegisters) {
          totals[r][p] = Lanes<kWidth>::zero();
        } else {
          Lanes<kWidth>::zero().store(sums_of(r, p));
        }
      }
    }
  }

  [[gnu::always_inline]] void store(const Totals& totals) const {
    for (int r = 0; r < kRows; ++r) {
      for (int p = 0; p < kPanels; ++p) totals[r][p].store(sums_of(r, p));
    }
  }

  // Scale, then the weighted sum of codes, of every row.
  [[gnu::always_inline]] const uint32_t* side_words(int64_t group) const {
    return operands_.activations + (num_code_words_ + 2 * group) * kRows;
  }

  [[gnu::always_inline]] int64_t side_data(int64_t group, int64_t panel) const {
    return (panel * shape_.num_groups() + group) * kPanelRows;
  }

  // −zero · Σ activation codes.
  [[gnu::always_inline]] void start_group(int64_t group, IntegerSums& sums) const {
    const uint32_t* negated_sums = side_words(group) + kRows;
#pragma GCC unroll 8
    for (int p = 0; p < kPanels; ++p) {
      for (int part = 0; part < kParts; ++part) {
        if constexpr (has_zero_points(kKind)) {
          const Ints zeros = load_bytes<kWidth>(operands_.weights.zeros + side_data(group, p) + part * kWidth);
#pragma GCC unroll 16
          for (int r = 0; r < kRows; ++r) sums[r][p][part] = zeros * broadcast_word<kWidth>(negated_sums[r]);
        } else {
#pragma GCC unroll 16
          for (int r = 0; r < kRows; ++r) sums[r][p][part] = broadcast_word<kWidth>(negated_sums[r]);
        }
      }
    }
  }

  [[gnu::always_inline]] void add_chunk(int64_t chunk, IntegerSums& sums) const {
    const uint8_t* codes = operands_.weights.codes + chunk * kChunk.num_vectors * kVectorBytes;
    if constexpr (kPrefetches) prefetch_codes(codes);
    const uint32_t* words = operands_.activations + chunk * kWordsPerChunk * kRows;
    [&]<int... kQuad>(std::integer_sequence<int, kQuad...>) __attribute__((always_inline)) {
      (add_quad<kQuad>(codes, words + kQuad * Dot::kWordsPerQuad * kRows, sums), ...);
    }(std::make_integer_sequence<int, kChunk.num_quads>());
  }

  // Several streams at once, each of a few pages, end before the CPU's own prefetching has caught up: fetch what the next call
  // will read. Reaching beyond the matrix is harmless.
  [[gnu::always_inline]] void prefetch_codes(const uint8_t* codes) const {
    for (int p = 0; p < kPanels; ++p) {
      for (int vector = 0; vector < kChunk.num_vectors; ++vector) {
        __builtin_prefetch(codes + (panels_ahead_ + p) * operands_.weights.panel_bytes + vector * kVectorBytes, 0, 2);
      }
    }
  }

  [[gnu::always_inline]] void prefetch_scales(int64_t group) const {
    for (int p = 0; p < kPanels; ++p) {
      const int64_t place = side_data(group, panels_ahead_ + p);
      __builtin_prefetch(operands_.weights.scales + place, 0, 2);
      if constexpr (has_zero_points(kKind)) __builtin_prefetch(operands_.weights.zeros + place, 0, 2);
    }
  }

  template <int kQuad>
  [[gnu::always_inline]] void add_quad(const uint8_t* codes, const uint32_t* words, IntegerSums& sums) const {
    typename Dot::Codes quads[kPanels][kParts];
#pragma GCC unroll 8
    for (int p = 0; p < kPanels; ++p) {
      for (int part = 0; part < kParts; ++part) {
        quads[p][part] = Dot::prepare(load_quad<kKind, kWidth, kQuad>(codes + p * operands_.weights.panel_bytes, part));
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const auto inputs = Dot::broadcast(words + r, kRows);
#pragma GCC unroll 8
      for (int p = 0; p < kPanels; ++p) {
        for (int part = 0; part < kParts; ++part) Dot::add(sums[r][p][part], quads[p][part], inputs);
      }
    }
  }

  [[gnu::always_inline]] void finish_group(int64_t group, const IntegerSums& sums, Totals& totals) const {
    const uint32_t* scales = side_words(group);
#pragma GCC unroll 8
    for (int p = 0; p < kPanels; ++p) {
      const auto weight_scales = Lanes<kWidth>::load(operands_.weights.scales + side_data(group, p));
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const float row_scale = __builtin_bit_cast(float, scales[r]);
        if constexpr (kTotalsInRegisters) {
          add_group(sums[r][p], weight_scales, row_scale, totals[r][p]);
        } else {
          Lanes<kWidth> total = Lanes<kWidth>::load(sums_of(r, p));
          add_group(sums[r][p], weight_scales, row_scale, total);
          total.store(sums_of(r, p));
        }
      }
    }
  }

  [[gnu::always_inline]] static void add_group(const Ints (&sums)[kParts], const Lanes<kWidth>& weight_scales, float row_scale,
                                               Lanes<kWidth>& total) {
    for (int part = 0; part < kParts; ++part) {
      const Floats dots = __builtin_convertvector(sums[part], Floats);
      total.part[part] = rounded_once<kWidth>(dots, weight_scales.part[part] * row_scale, total.part[part]);
    }
  }

  static constexpr int64_t kPrefetchedBytes = 256 << 10;  // a part of the second-level cache

  const TileOperands& operands_;
  const RowShape shape_;
  const int64_t num_code_words_;
  const int64_t panels_ahead_;  // 0, which prefetches nothing new, where the next panels are too long
};

template <WeightKind kKind>
struct IntegerTiles {
  static constexpr bool has_code_for(Isa isa) { return isa != Isa::kAvx512Bf16; }

  // 32 registers of AVX-512: up to 26 integer sums, the codes of two panels, one broadcast, masks. Dots of more than one
  // instruction need some for themselves. Rows too few to keep the arithmetic busy wait for memory and read a single stream:
  // measured, INT8 reads 33 to 50 % faster than with four panels at once. Codes of fewer bits are worth that for one row alone.
  static constexpr int panels_at_once(Isa isa, int num_rows) {
    if (isa >= Isa::kAvx512 && num_rows <= (kKind == WeightKind::kInt8 ? 6 : 1)) return 1;
    if (isa >= Isa::kAvx512 && num_rows <= 6) return 4;
    if (isa >= Isa::kAvx512) return num_rows > (has_vnni(isa) ? 13 : 6) ? 0 : 2;
    if (isa >= Isa::kAvx2) return num_rows > 5 ? 0 : (num_rows == 1 ? 4 : (num_rows <= 2 ? 2 : 1));
    return num_rows > 2 ? 0 : 1;
  }

  template <Isa kIsa>
  static ActivationLayout layout_of(const RowShape& shape) {
    constexpr int32_t kSymmetricZero = 1 << (chunk_shape_of(kKind).num_bits - 1);
    return {IntegerTile<kKind, kIsa, 1, 1>::num_code_words(shape), has_zero_points(kKind) ? 1 : kSymmetricZero};
  }

  template <Isa kIsa>
  static int64_t words_per_row(const RowShape& shape) {
    return layout_of<kIsa>(shape).num_code_words + 2 * shape.num_groups();
  }

  template <Isa kIsa>
  [[gnu::always_inline]] static void convert_row(const RowShape& shape, const float* x, uint32_t* words) {
    constexpr int kWordsPerQuad = IntegerDot<kIsa, chunk_shape_of(kKind).num_bits>::kWordsPerQuad;
    convert_to_codes<register_width(kIsa), kWordsPerQuad>(shape, layout_of<kIsa>(shape), x, words);
  }

  template <Isa kIsa, int kRows, int kPanels>
  [[gnu::always_inline]] static void multiply(const TileOperands& operands) {
    IntegerTile<kKind, kIsa, kRows, kPanels>(operands).multiply();
  }
};

}  // namespace

const TilePolicy& integer_tile_policy(WeightKind kind, Isa isa) {
  switch (kind) {
    case WeightKind::kInt8:
      return tile_policy<IntegerTiles<WeightKind::kInt8>>(isa);
    case WeightKind::kInt4:
      return tile_policy<IntegerTiles<WeightKind::kInt4>>(isa);
    case WeightKind::kInt4Asymmetric:
      return tile_policy<IntegerTiles<WeightKind::kInt4Asymmetric>>(isa);
    case WeightKind::kInt3Asymmetric:
      return tile_policy<IntegerTiles<WeightKind::kInt3Asymmetric>>(isa);
    case WeightKind::kInt2Asymmetric:
      return tile_policy<IntegerTiles<WeightKind::kInt2Asymmetric>>(isa);
    default:
      break;
  }
  LOG(FATAL) << "not an integer format";
}

}  // namespace skipper::cpu
