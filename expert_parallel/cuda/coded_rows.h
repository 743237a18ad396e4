// Hidden rows in 8-bit codes on their way between GPU ranks: kernels/row_codes.h, with the same codes as on the CPU.
#pragma once

#include <cstdint>

#include "kernels/cuda/expert_rows.h"
#include "kernels/row_codes.h"
#include "tensor/device_runtime.h"
#include "tensor/tensor.h"

namespace skipper::cuda {

// pack_outgoing() that codes the rows. x [T, H] f32, H a multiple of 4 · send [W · capacity, coded_row_bytes(H)] u8
void pack_coded_rows(const Tensor& x, const OutgoingOutput& plan, RowCode code, Tensor& send, Stream& stream);

// Rows that came from elsewhere, coded or not, byte for byte: send[slot] = rows[plan.token_of_row[slot]]. Rows of whole 4 bytes.
void hand_on_rows(const Tensor& rows, const OutgoingOutput& plan, Tensor& send, Stream& stream);

struct CodedRows {
  const Tensor& coded;     // [S · capacity, coded_row_bytes(H)] u8
  const Tensor& num_rows;  // [S] i32, rows from each source; slots beyond are left alone
  RowCode code = RowCode::kInt8;
};
// The rows that arrived, decoded and rounded to BF16. rows [S · capacity, H] bf16
void decode_arrived_rows(const CodedRows& arrived, Tensor& rows, Stream& stream);

// What x would be had it been sent: coded, decoded and rounded to BF16. x [T, H] f32 · rows [T, H] bf16
void round_through_codes(const Tensor& x, RowCode code, Tensor& rows, Stream& stream);

}  // namespace skipper::cuda
