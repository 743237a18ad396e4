// What a weight format supplies so that the tile driver can multiply with it: how a row of activations becomes 32-bit words,
// and one register tile of rows × panels.
//
// A policy is a class of static members:
//
//   struct SomeTiles {
//     // Instruction sets with code of their own: portable, AVX2 and AVX-512 at least (see instruction_set.h).
//     static constexpr bool has_code_for(Isa isa);
//     // Panels that are multiplied together with this many rows (1, 2, 4 or 8), or 0 when the registers cannot hold so many
//     // rows; once 0, 0 for all larger numbers too.
//     static constexpr int panels_at_once(Isa isa, int num_rows);
//     // Words of one row of activations: what its dot instruction broadcasts (two BF16, four int8 codes or one float each),
//     // padded with zeros to whole chunks of the weights, then whatever else the row needs (scales and sums of groups).
//     template <Isa kIsa> static int64_t words_per_row(const RowShape& shape);
//     template <Isa kIsa> [[gnu::always_inline]] static void convert_row(const RowShape& shape, const float* x, uint32_t* words);
//     // operands.sums[r][p][16] = row r · the sixteen rows of panel p, for all r < kRows and p < kPanels: one serial sum over K,
//     // the same for every kRows and kPanels.
//     template <Isa kIsa, int kRows, int kPanels> [[gnu::always_inline]] static void multiply(const TileOperands& operands);
//   };
//
// tile_policy<SomeTiles>(isa) erases the type: the driver calls through pointers, once per register tile. The policy of a
// matrix is chosen in policy_of() (tile_driver.cc). A new policy needs nothing else.
#pragma once

#include <array>
#include <cstdint>
#include <utility>

#include "kernels/cpu/instruction_set.h"
#include "kernels/packed_matrix.h"
#include "tensor/dtype.h"

namespace skipper::cpu {

inline constexpr int kMaxTileRows = 14;
inline constexpr int kMaxTilePanels = 8;
// Floats between the rows of a tile's sums: [row][kMaxTilePanels][16].
inline constexpr int64_t kSumsStride = kMaxTilePanels * kPanelRows;

// What decides the words of a row of activations.
struct RowShape {
  int64_t num_columns = 0;  // K
  int32_t group_size = 0;   // of the weights; 0 for floats
  int64_t num_groups() const { return group_size == 0 ? 0 : (num_columns + group_size - 1) / group_size; }
};

// Consecutive panels of a packed matrix as plain pointers.
struct PanelView {
  const uint8_t* codes = nullptr;   // of the first panel
  int64_t panel_bytes = 0;          // between panels' codes
  const bf16* scales = nullptr;     // [panel][G][16] or null
  const uint8_t* zeros = nullptr;   // [panel][G][16] or null
  RowShape shape;

  PanelView from(int64_t panel) const {
    PanelView view = *this;
    const int64_t side_data = panel * shape.num_groups() * kPanelRows;
    view.codes += panel * panel_bytes;
    if (scales != nullptr) view.scales += side_data;
    if (zeros != nullptr) view.zeros += side_data;
    return view;
  }
};

// One register tile. Word w of row r is activations[w · kRows + r]: the rows of a tile lie interleaved, so that one pointer
// reaches them all.
struct TileOperands {
  const uint32_t* activations = nullptr;
  PanelView weights;
  float* sums = nullptr;  // [kRows][kSumsStride], aligned to 64 bytes
};

// A policy compiled for one instruction set, its type erased.
struct TilePolicy {
  using ConvertRow = void (*)(const RowShape& shape, const float* x, uint32_t* words);
  using Multiply = void (*)(const TileOperands& operands);

  int max_rows = 0;
  std::array<int, kMaxTileRows + 1> panels_at_once{};  // by the number of rows
  int64_t (*words_per_row)(const RowShape& shape) = nullptr;
  ConvertRow convert_row = nullptr;
  Multiply multiply[kMaxTileRows + 1][4] = {};  // by the number of rows and log2 of the number of panels
};

namespace tile_policy_internal {

template <typename Policy>
struct ConvertKernel {
  static constexpr bool has_code_for(Isa isa) { return Policy::has_code_for(isa); }
  template <Isa kIsa>
  [[gnu::always_inline]] static void run(const RowShape& shape, const float* x, uint32_t* words) {
    Policy::template convert_row<kIsa>(shape, x, words);
  }
};

template <typename Policy, int kRows, int kPanels>
struct TileKernel {
  static constexpr bool has_code_for(Isa isa) { return Policy::has_code_for(isa); }
  template <Isa kIsa>
  [[gnu::always_inline]] static void run(const TileOperands& operands) {
    // The others stay out of the table: see add_tiles_of_rows.
    if constexpr (Policy::panels_at_once(kIsa, kRows) >= kPanels) Policy::template multiply<kIsa, kRows, kPanels>(operands);
  }
};

template <typename Policy, int kRows>
void add_tiles_of_rows(Isa isa, TilePolicy& policy) {
  const int panels = Policy::panels_at_once(code_used_on<Policy>(isa), kRows);
  policy.panels_at_once[kRows] = panels;
  if (panels == 0) return;
  policy.max_rows = kRows;
  if (panels >= 1) policy.multiply[kRows][0] = compiled_for<TileKernel<Policy, kRows, 1>, const TileOperands&>(isa);
  if (panels >= 2) policy.multiply[kRows][1] = compiled_for<TileKernel<Policy, kRows, 2>, const TileOperands&>(isa);
  if (panels >= 4) policy.multiply[kRows][2] = compiled_for<TileKernel<Policy, kRows, 4>, const TileOperands&>(isa);
  if (panels >= 8) policy.multiply[kRows][3] = compiled_for<TileKernel<Policy, kRows, 8>, const TileOperands&>(isa);
}

template <typename Policy, Isa kIsa>
int64_t words_per_row(const RowShape& shape) {
  return Policy::template words_per_row<code_used_on<Policy>(kIsa)>(shape);
}

template <typename Policy, Isa kIsa>
TilePolicy compile() {
  TilePolicy policy;
  policy.words_per_row = words_per_row<Policy, kIsa>;
  policy.convert_row = compiled_for<ConvertKernel<Policy>, const RowShape&, const float*, uint32_t*>(kIsa);
  [&]<int... kIndex>(std::integer_sequence<int, kIndex...>) {
    (add_tiles_of_rows<Policy, kIndex + 1>(kIsa, policy), ...);
  }(std::make_integer_sequence<int, kMaxTileRows>());
  return policy;
}

}  // namespace tile_policy_internal

template <typename Policy>
const TilePolicy& tile_policy(Isa isa) {
  using tile_policy_internal::compile;
  static const std::array<TilePolicy, 6> policies = {
      compile<Policy, Isa::kPortable>(), compile<Policy, Isa::kAvx2>(),       compile<Policy, Isa::kAvx2Vnni>(),
      compile<Policy, Isa::kAvx512>(),   compile<Policy, Isa::kAvx512Vnni>(), compile<Policy, Isa::kAvx512Bf16>()};
  return policies[static_cast<size_t>(isa)];
}

}  // namespace skipper::cpu
