// Keys and values of 64 positions in shared memory, and a warpgroup's products with them.
//
// A tile is [width / 64][64 positions][64 elements] of BF16: rows of 128 bytes whose eight parts of 16 bytes are permuted by the
// row, the swizzle of 128 bytes that wgmma reads without bank conflicts. Heads of fewer than 64 elements are padded with zeros.
// Keys are an operand B whose rows are columns of the result; values are one whose rows are summed over, and are read turned.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/wgmma.cuh"

namespace skipper::cuda {

inline constexpr int kTileKeys = 64;
inline constexpr int kPanelBytes = kTileKeys * 128;  // 64 elements of every position
// Positions that lie together in the cache, whatever the size of its blocks.
inline constexpr int kAdjacentPositions = 16;

// Elements of a head in shared memory and registers.
template <int kHeadDim>
inline constexpr int kWidth = kHeadDim < 64 ? 64 : kHeadDim;

template <int kHeadDim>
inline constexpr int kTileBytes = kTileKeys * kWidth<kHeadDim> * 2;

// Of shared memory: the keys of a tile, then its values; as many stages as tiles can be under way, and one.
template <int kHeadDim>
inline constexpr int kStageBytes = 2 * kTileBytes<kHeadDim>;
inline constexpr int kNumStages = 3;
// Swizzled tiles begin at multiples of 1024 bytes, the memory of a launch perhaps not.
template <int kHeadDim>
inline constexpr int kSharedBytes = kNumStages * kStageBytes<kHeadDim> + 1024;

__device__ __forceinline__ std::byte* aligned_stages(std::byte* memory) {
  return memory + (1024 - shared_address(memory) % 1024) % 1024;
}

// Sixteen bytes to shared memory; zeros unless `valid`, and then nothing is read.
__device__ __forceinline__ void copy_or_clear(uint32_t target, const void* source, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(target), "l"(source), "r"(valid ? 16 : 0) : "memory");
}
__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Then lets wgmma see what this thread's copies wrote.
template <int kInFlight>
__device__ __forceinline__ void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kInFlight) : "memory");
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// One head of a sequence in the cache.
struct CachedHead {
  const __nv_bfloat16* keys;  // of slot 0
  const __nv_bfloat16* values;
  const int32_t* block_table;
  int block_size;
  int slot_stride;  // elements between slots
  int length;       // positions that are there; others are not read
};

// The cache slot of the first of 16 positions of a tile; lanes 0 to 3 have the tile's four, the other lanes the same again.
__device__ __forceinline__ int adjacent_slots(const CachedHead& head, int tile) {
  const int position = tile * kTileKeys + static_cast<int>(threadIdx.x) % 4 * kAdjacentPositions;
  if (position >= head.length) return 0;
  return __ldcg(head.block_table + position / head.block_size) * head.block_size + position % head.block_size;
}

// Starts copying a tile; positions beyond the sequence become zeros. `slots` of adjacent_slots(). All kThreads of a block call.
template <int kHeadDim, int kThreads>
__device__ __forceinline__ void copy_tile(const CachedHead& head, int tile, int slots, uint32_t stage) {
  constexpr int kParts = kWidth<kHeadDim> / 8;  // of 16 bytes, in a row
  constexpr int kRows = kThreads / kParts;
  const int part = static_cast<int>(threadIdx.x) % kParts;
#pragma unroll
  for (int pass = 0; pass < kTileKeys / kRows; ++pass) {
    const int row = pass * kRows + static_cast<int>(threadIdx.x) / kParts;
    const int slot = __shfl_sync(~0u, slots, row / kAdjacentPositions) + row % kAdjacentPositions;
    const bool valid = tile * kTileKeys + row < head.length && part * 8 < kHeadDim;
    const int64_t source = valid ? static_cast<int64_t>(slot) * head.slot_stride + part * 8 : 0;
    const uint32_t target = stage + part / 8 * kPanelBytes + row * 128 + (part ^ row) % 8 * 16;
    copy_or_clear(target, head.keys + source, valid);
    copy_or_clear(target + kTileBytes<kHeadDim>, head.values + source, valid);
  }
}

// Brings the lines of a tile to the L2 cache; arguments as of copy_tile().
template <int kHeadDim, int kThreads>
__device__ __forceinline__ void prefetch_tile(const CachedHead& head, int tile, int slots) {
  constexpr int kLines = (kHeadDim + 63) / 64;  // of 128 bytes, in a row
#pragma unroll
  for (int first = 0; first < kTileKeys * kLines; first += kThreads) {
    const int item = first + static_cast<int>(threadIdx.x), row = item / kLines % kTileKeys;
    const int slot = __shfl_sync(~0u, slots, row / kAdjacentPositions) + row % kAdjacentPositions;
    if (item >= kTileKeys * kLines || tile * kTileKeys + row >= head.length) continue;
    const int64_t source = static_cast<int64_t>(slot) * head.slot_stride + item % kLines * 64;
    prefetch_to_l2(head.keys + source);
    prefetch_to_l2(head.values + source);
  }
}

// The compiler does not see that wgmma writes registers until it has been waited for: whatever reads them comes after this.
template <int kCount>
__device__ __forceinline__ void pin(float (&values)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(values[i])::"memory");
}
template <int kSteps>
__device__ __forceinline__ void pin(uint32_t (&fragments)[kSteps][4]) {
#pragma unroll
  for (int i = 0; i < 4 * kSteps; ++i) asm volatile("" : "+r"(fragments[i / 4][i % 4])::"memory");
}

// Low words of the descriptors of the first stage's keys and values (kernels/cuda/hopper.cuh). Of values, the next 64 elements
// of a head lie a panel further.
__device__ __forceinline__ uint32_t keys_descriptor(const std::byte* stages) { return tile_descriptor(stages); }
template <int kHeadDim>
__device__ __forceinline__ uint32_t values_descriptor(const std::byte* stages) {
  return tile_descriptor(stages) + kTileBytes<kHeadDim> / 16 + ((kPanelBytes / 16 - 1) << 16);
}
template <int kHeadDim>
inline constexpr uint32_t kStageStep = kStageBytes<kHeadDim> / 16;

// scores = q · keysᵀ of 64 rows, as kernels/cuda/wgmma.cuh has operands and sums. Only starts it.
template <int kSteps>
__device__ __forceinline__ void score_tile(const uint32_t (&q)[kSteps][4], uint32_t keys, float (&scores)[32]) {
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
    wgmma<64>(scores, q[step], keys + step / 4 * (kPanelBytes / 16) + step % 4 * 2, step == 0 ? 0 : 1);
  }
}

// As wgmma(), where B is [16][kColumns] in shared memory.
template <int kColumns>
__device__ __forceinline__ void wgmma_turned(float* d, const uint32_t* a, uint32_t b, int accumulate);

template <>
__device__ __forceinline__ void wgmma_turned<64>(float* d, const uint32_t* a, uint32_t b, int accumulate) {
  asm volatile(
      "{\n.reg .pred p;\n.reg .b64 b;\nsetp.ne.b32 p, %37, 0;\nmov.b64 b, {%36, 0x40000040};\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15,"
      " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
      "{%32, %33, %34, %35}, b, p, 1, 1, 1;\n}\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]),
        "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]),
        "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]),
        "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b), "r"(accumulate));
}

template <>
__device__ __forceinline__ void wgmma_turned<128>(float* d, const uint32_t* a, uint32_t b, int accumulate) {
  asm volatile(
      "{\n.reg .pred p;\n.reg .b64 b;\nsetp.ne.b32 p, %69, 0;\nmov.b64 b, {%68, 0x40000040};\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15,"
      " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31,"
      " %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47,"
      " %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
      "{%64, %65, %66, %67}, b, p, 1, 1, 1;\n}\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]),
        "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]),
        "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]),
        "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]),
        "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]),
        "+f"(d[40]), "+f"(d[41]), "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]),
        "+f"(d[48]), "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]),
        "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b), "r"(accumulate));
}

// out = weights · values, added to what is there unless `is_first`. Only starts it.
template <int kColumns>
__device__ __forceinline__ void add_values(const uint32_t (&weights)[kTileKeys / 16][4], uint32_t values, bool is_first,
                                           float (&out)[kColumns / 2]) {
#pragma unroll
  for (int step = 0; step < kTileKeys / 16; ++step) {
    wgmma_turned<kColumns>(out, weights[step], values + step * (16 * 128 / 16), is_first && step == 0 ? 0 : 1);
  }
}

}  // namespace skipper::cuda
