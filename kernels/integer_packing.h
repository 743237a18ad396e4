// Integer matrices: from weights to codes in panels and back. The layout is documented in kernels/packed_matrix.h.
#pragma once

#include <span>

#include "kernels/packed_matrix.h"
#include "tensor/tensor.h"

namespace skipper {

// Quantises every group of w [N, K] bf16 or f32 by quantize_group and writes codes, scales and zero points into `packed`,
// whose format and sizes decide. `importance` [K] weighs the inputs: see quantize_group. Throws InvalidRequest naming row
// and column of a NaN or infinite weight; a caller adds the tensor's name. Panels may be packed by several threads:
// pack_integer_rows(w.slice(16 * begin, ...), part) with part = packed.panels(begin, end).
void pack_integer_rows(const Tensor& w, PackedMatrix& packed);
void pack_integer_rows(const Tensor& w, std::span<const float> importance, PackedMatrix& packed);

// scale · (code − zero) of every weight into out [N, K] f32.
void unpack_integer(const PackedMatrix& packed, Tensor& out);

}  // namespace skipper
