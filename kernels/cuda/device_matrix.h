// Weight matrices where a GPU reads them, in the order in which tensor cores take them: G matrices [N, K], one per expert.
//
// A matrix is cut into row tiles of 64 outputs and chunks of 64 inputs; N and K are padded. It is
// [row tile][chunk][bytes of a chunk], so that one block of threads reads one ascending stream. Within a chunk lie first the
// codes, by the thread that multiplies with them (128 threads, 4 steps of 16 inputs each), then the scales of its groups:
//
//   format      codes of a chunk                                       scales
//   bf16        8192 B: [step 4][thread 128][8 weights]                none
//   int8-gN     4096 B: [half 2][thread 128][step 2][8 codes]          [group][row 64] bf16, one group per chunk or two (g32)
//   int4-gN     2048 B: [thread 128][step 4][8 codes]                  as int8
//
// The eight weights of a thread in a step are its A operand of wgmma m64nNk16. With warp = thread / 32, g = thread % 32 / 4 and
// c = thread % 4 they are a[0..7], and lie in this order (int4 as the nibbles of a little-endian word, the lowest first:
// a0 a2 a4 a6 a1 a3 a5 a7, so that (word >> 4·m) & 0x000f000f is the pair a[2m], a[2m + 1]):
//
//   a[0], a[1]: row 16·warp + g      inputs 16·step + 2·c and the next         a[4], a[5]: the same row, 8 inputs on
//   a[2], a[3]: row 16·warp + g + 8  the same inputs                           a[6], a[7]: that row, 8 inputs on
//
// Codes are unsigned as in kernels/packed_matrix.h: weight = scale · (code − 128), or − 8 for int4. Groups of 128 repeat their
// scale in both of their chunks. Padding is 0 in BF16 and the code that stands for 0 in integers; the scale of a row or group
// that is all padding is 0. A chunk is a whole number of 128 bytes, so that every matrix begins at a multiple of 128.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/packed_matrix.h"
#include "kernels/weight_format.h"
#include "tensor/cuda/pinned_tensor.h"
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

// Where a matrix rests: in memory of the device; in page-locked memory of the host, which kernels read in place over the bus; or
// nowhere here, since somebody else multiplies with it.
enum class MatrixPlace : uint8_t { kDevice, kHost, kAbsent };

// G matrices of one shape, each in its own format and place. Shares its memory when copied.
struct DeviceMatrices {
  MatrixShape shape;
  std::vector<WeightFormat> formats;  // [G]
  std::vector<MatrixPlace> places;    // [G]
  Tensor memory;                      // [bytes] u8 on the GPU: the matrices of kDevice in turn, 128-byte aligned
  PinnedTensor host_memory;           // [bytes] u8: those of kHost in turn; without any, undefined
  Tensor copies;                      // [bytes of host_memory] u8 on the GPU, of with_copies(); else undefined
  // What kernels read of each: [G, 2] i64 on the GPU: address of its memory or 0, then WeightKind + 256 · group size.
  Tensor table;

  int num_matrices() const { return static_cast<int>(formats.size()); }
  bool has_absent() const { return std::ranges::find(places, MatrixPlace::kAbsent) != places.end(); }
  // On the GPU, and on the host.
  size_t num_bytes() const { return memory.num_bytes(); }
  size_t num_host_bytes() const { return host_memory.tensor().defined() ? host_memory.tensor().num_bytes() : 0; }
};

// Uninitialised memory for the matrices and their table, complete when it returns; throws DeviceError without memory,
// InvalidRequest as device_matrix_bytes(). Matrices in host memory can be packed, uploaded and read back as well.
DeviceMatrices empty_device_matrices(std::span<const WeightFormat> formats, const MatrixShape& shape, Device device);
// The same with a place for each; those of kHost begin as zeros. Throws DeviceError also without page-locked memory.
DeviceMatrices empty_device_matrices(std::span<const WeightFormat> formats, std::span<const MatrixPlace> places,
                                     const MatrixShape& shape, Device device);

// The same matrices, but kernels read those of kHost from `copies`: num_host_bytes() of GPU memory, 128-byte aligned, to which
// somebody brings host_memory before each use.
DeviceMatrices with_copies(const DeviceMatrices& matrices, const Tensor& copies);

// How gate and up lie in one matrix, so that one thread of a product holds both: rows in turn by eight, gate 0..7, up 0..7,
// gate 8..15, ... I must be a multiple of 8. The matrix has 2 · I rows.
//
// The four below work on the host and write all of `out`: device_matrix_bytes() of host memory, 16-byte aligned. They share no
// state, so loaders may run them on many threads.

// Codes and scales of a packed matrix in the order of the GPU, unchanged. Throws InvalidRequest as device_matrix_bytes().
void repack_device_matrix(const PackedMatrix& packed, std::span<std::byte> out);
// The same of gate and up [I, K] joined as kernels/expert_products.h has them: panels gate 0, up 0, gate 1, ...
void repack_device_gate_up(const PackedMatrix& joined, int64_t intermediate_size, std::span<std::byte> out);
// Host weights (bf16 or f32 [N, K]) rounded to BF16, or quantised as kernels/group_quantizer.h does. Throws InvalidRequest also
// on a NaN or infinite weight of an integer format.
void pack_device_matrix(const Tensor& w, const WeightFormat& format, std::span<std::byte> out);
void pack_device_gate_up(const Tensor& gate, const Tensor& up, const WeightFormat& format, std::span<std::byte> out);

// Copies packed bytes of matrix `index` to its place, in stream order. `packed` must live until the stream is synchronised.
void upload_matrix(std::span<const std::byte> packed, int index, DeviceMatrices& matrices, Stream& stream);

// Fills all matrices on a GPU, their padding included, with values that look random and have the size of trained weights
// (within about ±1 / √K), for benchmarks. Returns when they are there: kernels may read weights before they wait for earlier
// kernels (kernels/cuda/launch.cuh). Depends on the seed, the formats and the shape alone.
void fill_random(DeviceMatrices& matrices, uint64_t seed, Stream& stream);

// What matrix `index` stands for, read back: [N, K] f32 on the host, scale · code not yet rounded to BF16. Gate and up in the
// order of the matrix.
Tensor read_back(const DeviceMatrices& matrices, int index, Stream& stream);

}  // namespace skipper::cuda
