// Weight matrices in GPU memory in the order in which tensor cores take them: G matrices [N, K], one per expert.
//
// A matrix is cut into row tiles of 64 outputs and chunks of 64 inputs; N and K are padded with zeros. A row tile's chunks
// follow one another, so that one block of threads reads one ascending stream. Within a chunk lie first the codes, by the
// thread that multiplies with them (128 threads, 4 steps of 16 inputs each, as the A operand of wgmma m64nNk16 wants them), then
// the scales of its groups:
//
//   format      codes of a chunk                                       scales
//   bf16        8192 B: [step 4][thread 128][8 weights]                none
//   int8-gN     4096 B: [half 2][thread 128][16 codes]                 [group][row 64] bf16, one group per chunk or two (g32)
//   int4-gN     2048 B: [thread 128][step 4][8 codes]                  as int8
//
// Groups of 128 repeat their scale in both of their chunks. Product and fragment order: kernels/cuda/matrix_products.h.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/weight_format.h"
#include "tensor/device_runtime.h"
#include "tensor/tensor.h"

namespace skipper::cuda {

inline constexpr int64_t kTileRows = 64;
inline constexpr int64_t kChunkInputs = 64;

struct MatrixShape {
  int64_t num_rows = 0;     // N, outputs
  int64_t num_columns = 0;  // K, inputs
};

// Bytes of one matrix, its padding included. Throws InvalidRequest naming a format that GPUs do not multiply with (f32 and
// asymmetric codes).
size_t device_matrix_bytes(const WeightFormat& format, const MatrixShape& shape);

// G matrices of one shape, each in its own format. Shares its memory when copied.
struct DeviceMatrices {
  MatrixShape shape;
  std::vector<WeightFormat> formats;  // [G]
  Tensor memory;                      // [bytes] u8 on the GPU: the matrices in turn, 128-byte aligned
  // What kernels read of each: [G, 2] i64 on the GPU: address of its memory, then WeightKind + 256 · group size.
  Tensor table;

  int num_matrices() const { return static_cast<int>(formats.size()); }
  size_t num_bytes() const { return memory.num_bytes(); }
};

// Uninitialised memory for the matrices; throws DeviceError without memory, InvalidRequest as device_matrix_bytes().
DeviceMatrices empty_device_matrices(std::span<const WeightFormat> formats, const MatrixShape& shape, Device device);

// How gate and up lie in one matrix, so that one thread of a product holds both: rows in turn by eight, gate 0..7, up 0..7,
// gate 8..15, ... I must be a multiple of 8.
//
// Packs host weights (bf16 or f32 [N, K]) on the host into `out`, device_matrix_bytes() of host memory: rounded to BF16, or
// quantised as kernels/group_quantizer.h does. Throws InvalidRequest on a NaN or infinite weight of an integer format.
void pack_device_matrix(const Tensor& w, const WeightFormat& format, std::span<std::byte> out);
// The same of gate and up [I, K] each; the matrix has 2 · I rows.
void pack_device_gate_up(const Tensor& gate, const Tensor& up, const WeightFormat& format, std::span<std::byte> out);
// Copies packed bytes of matrix `index` to its place, in stream order. `packed` must live until the stream is synchronised.
void upload_matrix(std::span<const std::byte> packed, int index, DeviceMatrices& matrices, Stream& stream);

// Fills all matrices with values that look random, of the size of trained weights, without touching the host: for benchmarks.
void fill_random(DeviceMatrices& matrices, uint64_t seed, Stream& stream);

// What matrix `index` stands for, read back: [N, K] f32 on the host.
Tensor read_back(const DeviceMatrices& matrices, int index, Stream& stream);

}  // namespace skipper::cuda
