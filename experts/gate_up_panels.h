// The joined gate and up matrix of a gated feed-forward network: panels of the two in turn, so that a kernel has both operands
// of an activation side by side.
#pragma once

#include "kernels/packed_matrix.h"

namespace skipper {

// Of gate and up `half` [I, H] each: both padded to whole panels, so 2 · 16 · ceil(I / 16) rows.
PackedShape joined_shape(const PackedShape& half);

// What pack_gate_up() makes of the same weights, from two matrices that are packed already in the format of `joined`.
void join_panels(const PackedMatrix& gate, const PackedMatrix& up, PackedMatrix& joined);

}  // namespace skipper
