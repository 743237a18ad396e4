// Random weights of a believable size, written at the speed of memory.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>

#include "kernels/cuda/device_matrix.h"
#include "tensor/cuda/cuda_check.h"

namespace skipper::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMostBlocks = 8192;
// What one thread writes at once.
constexpr uint32_t kUnitBytes = 16;

struct FillArguments {
  const int64_t* table;  // DeviceMatrices::table
  uint64_t seed;
  uint32_t num_chunks;  // of a matrix
  float largest_weight;
};

// Bits that depend on every bit of `counter`: a finaliser of two multiplications (SplitMix64).
__device__ __forceinline__ uint64_t mixed(uint64_t counter) {
  counter = (counter ^ (counter >> 30)) * 0xbf58476d1ce4e5b9ull;
  counter = (counter ^ (counter >> 27)) * 0x94d049bb133111ebull;
  return counter ^ (counter >> 31);
}

__device__ __forceinline__ uint32_t packed_pair(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

// Two weights, uniform in [−largest, largest).
__device__ __forceinline__ uint32_t random_weights(uint32_t bits, float largest) {
  const float step = largest / 32768.0f;
  return packed_pair(static_cast<float>(static_cast<int16_t>(bits & 0xffff)) * step,
                     static_cast<float>(static_cast<int16_t>(bits >> 16)) * step);
}

// Two scales within a quarter of `typical`.
__device__ __forceinline__ uint32_t random_scales(uint32_t bits, float typical) {
  const float base = 0.75f * typical, step = 0.5f * typical / 65536.0f;
  return packed_pair(base + static_cast<float>(bits & 0xffff) * step, base + static_cast<float>(bits >> 16) * step);
}

// Codes of four bits without −8, which has no counterpart: weights of a mean that is not zero would send all tokens to the same
// experts.
__device__ __forceinline__ uint32_t balanced_nibbles(uint32_t codes) {
  const uint32_t any = codes | codes >> 1;
  const uint32_t is_zero = ~(any | any >> 2) & 0x11111111u;
  return codes | is_zero << 3;
}

// What a unit holds is decided by its place within a chunk.
struct UnitKinds {
  uint32_t units_per_chunk;
  uint32_t units_of_codes;
  WeightKind kind;

  __device__ explicit UnitKinds(int64_t format) : kind(static_cast<WeightKind>(format & 0xff)) {
    const bool is_integer = kind != WeightKind::kBF16;
    const uint32_t groups = is_integer ? (format >> 8 == 32 ? 2 : 1) : 0;
    const uint32_t code_bytes = kind == WeightKind::kBF16 ? 8192 : (kind == WeightKind::kInt8 ? 4096 : 2048);
    units_of_codes = code_bytes / kUnitBytes;
    units_per_chunk = units_of_codes + groups * 2 * static_cast<uint32_t>(kTileRows) / kUnitBytes;
  }

  __device__ __forceinline__ uint4 make(uint32_t unit, uint4 bits, float largest_weight) const {
    if (kind == WeightKind::kBF16) {
      return make_uint4(random_weights(bits.x, largest_weight), random_weights(bits.y, largest_weight),
                        random_weights(bits.z, largest_weight), random_weights(bits.w, largest_weight));
    }
    if (unit % units_per_chunk < units_of_codes) {
      if (kind != WeightKind::kInt4) return bits;
      return make_uint4(balanced_nibbles(bits.x), balanced_nibbles(bits.y), balanced_nibbles(bits.z), balanced_nibbles(bits.w));
    }
    const float scale = largest_weight / (kind == WeightKind::kInt8 ? 128.0f : 8.0f);
    return make_uint4(random_scales(bits.x, scale), random_scales(bits.y, scale), random_scales(bits.z, scale),
                      random_scales(bits.w, scale));
  }
};

// blockIdx.y is the matrix; its units are spread over all threads of the blocks of one y.
__global__ void __launch_bounds__(kThreads) fill_kernel(const FillArguments arguments) {
  const uint32_t matrix = blockIdx.y;
  auto* out = reinterpret_cast<uint4*>(arguments.table[2 * matrix]);
  if (out == nullptr) return;  // absent
  const UnitKinds kinds(arguments.table[2 * matrix + 1]);
  const uint64_t num_units = uint64_t{arguments.num_chunks} * kinds.units_per_chunk;
  const uint64_t stream_of_matrix = mixed(arguments.seed + mixed(matrix + 1));
  const uint64_t stride = uint64_t{gridDim.x} * kThreads;
  for (uint64_t unit = uint64_t{blockIdx.x} * kThreads + threadIdx.x; unit < num_units; unit += stride) {
    const uint64_t low = mixed(stream_of_matrix + 2 * unit), high = mixed(stream_of_matrix + 2 * unit + 1);
    const uint4 bits = make_uint4(static_cast<uint32_t>(low), static_cast<uint32_t>(low >> 32), static_cast<uint32_t>(high),
                                  static_cast<uint32_t>(high >> 32));
    out[unit] = kinds.make(static_cast<uint32_t>(unit), bits, arguments.largest_weight);
  }
}

}  // namespace

void fill_random(DeviceMatrices& matrices, uint64_t seed, Stream& stream) {
  CHECK(matrices.memory.on_gpu() && stream.native() != nullptr) << "random weights are made on a GPU";
  if (matrices.num_bytes() + matrices.num_host_bytes() == 0) return;
  const MatrixShape& shape = matrices.shape;
  const int64_t num_tiles = (shape.num_rows + kTileRows - 1) / kTileRows;
  const int64_t num_chunks = num_tiles * ((shape.num_columns + kChunkInputs - 1) / kChunkInputs);
  CHECK_LE(num_chunks, int64_t{1} << 23) << "units of a matrix are counted in 32 bits";
  const FillArguments arguments{.table = matrices.table.data<int64_t>(),
                                .seed = seed,
                                .num_chunks = static_cast<uint32_t>(num_chunks),
                                .largest_weight = 1.0f / std::sqrt(static_cast<float>(shape.num_columns))};
  const int64_t num_matrices = matrices.num_matrices();
  const dim3 blocks(static_cast<unsigned>(std::clamp<int64_t>(kMostBlocks / num_matrices, 1, num_chunks)),
                    static_cast<unsigned>(num_matrices));
  fill_kernel<<<blocks, kThreads, 0, static_cast<cudaStream_t>(stream.native())>>>(arguments);
  CUDA_CHECK(cudaGetLastError());
  stream.synchronize();
}

}  // namespace skipper::cuda
