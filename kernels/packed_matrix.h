// A weight matrix in the order in which kernels read it. One layout serves every instruction set, memory and disk.
//
// w [N, K]: N output rows, K inputs. Sixteen output rows form a panel; within a panel the K axis is cut into chunks whose
// bytes for all sixteen rows lie side by side, so that one 64-byte vector holds sixteen rows × 4 bytes. N is padded to whole
// panels and K to whole chunks; the padding multiplies activations that are zero.
//
//   kind    chunk of K   bytes per panel and chunk
//   f32           1      [row 16] f32
//   bf16          2      [row 16][k 2] bf16
//   int8          4      [row 16][k 4] u8, code = weight / scale + 128
//   int4          8      [row 16][k 4] u8: inputs k = 0..3 in the low nibbles, 4..7 in the high ones
//   int2         16      [row 16][k 4] u8: inputs 4·q + k in bits 2·q and 2·q + 1, q = 0..3
//   int3         32      two int2 chunks (low two bits), then [row 16][k 4] u8: bit q is the high bit of input 4·q + k
//
// scales [panels, G, 16] bf16 and, for asymmetric kinds, zeros [panels, G, 16] u8 with G = ceil(K / group_size) groups; the last
// group of a row may be shorter. A group of padding rows has scale 0.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/weight_format.h"
#include "tensor/tensor.h"

namespace skipper {

inline constexpr int64_t kPanelRows = 16;

struct PackedMatrix {
  WeightFormat format;
  ActivationFormat activations = ActivationFormat::kBF16;
  int64_t num_rows = 0;     // N, outputs
  int64_t num_columns = 0;  // K, inputs
  Tensor codes;             // [panels, bytes per panel] u8
  Tensor scales;            // [panels, G, 16] bf16; undefined for floats
  Tensor zeros;             // [panels, G, 16] u8; undefined unless asymmetric

  bool defined() const { return codes.defined(); }
  int64_t num_panels() const { return codes.dim(0); }
  int64_t num_groups() const { return scales.defined() ? scales.dim(1) : 0; }
  size_t num_bytes() const;
  // Panels [begin, end): rows 16·begin to 16·end. Shares the memory.
  PackedMatrix panels(int64_t begin, int64_t end) const;
};

struct PackedShape {
  int64_t num_rows = 0;
  int64_t num_columns = 0;
};

// Sizes of the three tensors of a matrix.
int64_t panel_bytes(const WeightFormat& format, int64_t num_columns);
size_t packed_bytes(const WeightFormat& format, const PackedShape& shape);

// Uninitialised memory for a matrix; the loader fills it by pack_into or from a file. Throws DeviceError without memory.
PackedMatrix empty_packed(const WeightFormat& format, const PackedShape& shape);
// The same over memory of packed_bytes() at `memory` (64-byte aligned), which must outlive it: codes, scales, zeros in turn.
PackedMatrix borrow_packed(const WeightFormat& format, const PackedShape& shape, std::byte* memory);

// Rows of `w` [N, K] bf16 or f32 into panels of `packed`, rounding to its format. Integer kinds are rounded to nearest, each
// group on its own: see quantize_group in kernels/group_quantizer.h. Rows of a panel beyond N become zeros.
void pack_into(const Tensor& w, PackedMatrix& packed);
// Gate and up [I, K] of an expert with their panels in turn, as kernels/expert_products.h reads them; `packed` has the shape
// {2 · 16 · ceil(I / 16), K}.
void pack_gate_up(const Tensor& gate, const Tensor& up, PackedMatrix& packed);
PackedMatrix pack(const Tensor& w, const WeightFormat& format);
// The same bits at another place in memory.
PackedMatrix copy_of(const PackedMatrix& packed);

// What the codes stand for: [N, K] f32.
Tensor unpack(const PackedMatrix& packed);

}  // namespace skipper
