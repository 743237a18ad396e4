// One persistent kernel for all products: weights are the A operand of wgmma, from registers, and rows of activations its B
// operand, from shared memory. So 64 outputs meet 8 to 256 rows with the same instruction, a weight is read once for all of
// them, and codes are turned into BF16 on the way to the registers.
//
// A block is one producer warp, which keeps the pipeline's stages full through the copy engine, and one warpgroup, or two for
// wide tiles, each with its own 64 outputs; they share the rows. A stage holds one chunk of 64 inputs: the packed weights of each
// warpgroup and the rows [tile_width][64]. Tiles (matrix, outputs, rows) are numbered matrix by matrix; block b takes tiles b,
// b + grid, ... and the pipeline runs on from one tile to the next.
#include <cuda_runtime.h>
#include <glog/logging.h>

#include <algorithm>

#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/matrix_products.h"
#include "kernels/cuda/product_plan.h"
#include "kernels/cuda/tensor_map.h"
#include "kernels/cuda/weight_fragments.cuh"
#include "kernels/cuda/wgmma.cuh"
#include "tensor/cuda/cuda_check.h"

namespace skipper::cuda {
namespace {

constexpr int kMaxStages = 48;
constexpr int kMaxMatrices = 512;
constexpr int kRowsPerBox = 64;  // of wide tiles; narrow ones are one box

enum class Epilogue : int { kF32, kBF16, kSwiGlu };

struct ProductArguments {
  const int64_t* table;        // DeviceMatrices::table
  const int32_t* row_offsets;  // null: dense, one matrix, num_rows rows
  MatrixEntry dense;
  void* y;
  int num_matrices;
  int num_rows;     // dense only
  int num_outputs;  // N
  int num_chunks;   // of K
  int tile_width;
  int num_stages;
  int stage_bytes;
  int rows_offset;  // of the rows in a stage
  Epilogue epilogue;
};

struct SharedHeader {
  uint64_t full[kMaxStages];
  uint64_t empty[kMaxStages];
  int first_tile[kMaxMatrices + 1];  // of each matrix; the last is the number of tiles
  int first_row[kMaxMatrices + 1];   // row_offsets
};

__device__ __forceinline__ MatrixEntry entry_of(const ProductArguments& a, int matrix) {
  if (a.row_offsets == nullptr) return a.dense;
  const longlong2 entry = reinterpret_cast<const longlong2*>(a.table)[matrix];
  return {reinterpret_cast<const uint8_t*>(entry.x), static_cast<WeightKind>(entry.y & 0xff), static_cast<int>(entry.y >> 8)};
}

// Position in the ring of stages.
struct StageCursor {
  int stage = 0;
  uint32_t parity = 0;

  __device__ __forceinline__ void advance(int num_stages) {
    if (++stage == num_stages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

// One tile of the output, in the order in which blocks take them.
struct Tile {
  MatrixEntry matrix;
  int row_tile;  // first of the block's tiles of 64 outputs
  int first_row;  // among the sorted rows
  int num_rows;   // 1 .. tile_width
};

// Walks the tiles of one block, ascending.
template <int kWarpgroups>
class TileWalk {
 public:
  __device__ TileWalk(const ProductArguments& arguments, const SharedHeader& header)
      : a_(arguments), header_(header), index_(static_cast<int>(blockIdx.x)) {}

  __device__ bool next(Tile& tile) {
    if (index_ >= header_.first_tile[a_.num_matrices]) return false;
    while (index_ >= header_.first_tile[matrix_ + 1]) ++matrix_;
    const int begin = header_.first_row[matrix_];
    const int rows = header_.first_row[matrix_ + 1] - begin;
    const int width_tiles = (rows + a_.tile_width - 1) / a_.tile_width;
    const int local = index_ - header_.first_tile[matrix_];
    const int offset = local % width_tiles * a_.tile_width;
    tile = {entry_of(a_, matrix_), local / width_tiles * kWarpgroups, begin + offset, min(rows - offset, a_.tile_width)};
    index_ += static_cast<int>(gridDim.x);
    return true;
  }

 private:
  const ProductArguments& a_;
  const SharedHeader& header_;
  int index_;
  int matrix_ = 0;
};

// Fills the header's first_row and first_tile; by one warp. A lane takes consecutive matrices, so that all its reads are under
// way at once.
template <int kWarpgroups>
__device__ void number_tiles(const ProductArguments& a, SharedHeader& header) {
  constexpr int kPerLane = 4;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int block_tiles = (a.num_outputs + 64 * kWarpgroups - 1) / (64 * kWarpgroups);
  int sum = 0;
  for (int base = lane * kPerLane; base - lane * kPerLane < a.num_matrices; base += 32 * kPerLane) {
    int row[kPerLane + 1], tiles[kPerLane + 1] = {0};
    for (int i = 0; i <= kPerLane; ++i) {
      const int matrix = min(base + i, a.num_matrices);
      row[i] = a.row_offsets == nullptr ? matrix * a.num_rows : a.row_offsets[matrix];
    }
    for (int i = 0; i < kPerLane; ++i) {
      tiles[i + 1] = tiles[i] + (row[i + 1] - row[i] + a.tile_width - 1) / a.tile_width * block_tiles;
    }
    int inclusive = tiles[kPerLane];
    for (int step = 1; step < 32; step *= 2) {
      const int other = __shfl_up_sync(~0u, inclusive, step);
      if (lane >= step) inclusive += other;
    }
    const int before = sum + inclusive - tiles[kPerLane];
    for (int i = 0; i < kPerLane && base + i < a.num_matrices; ++i) {
      header.first_tile[base + i + 1] = before + tiles[i + 1];
      header.first_row[base + i + 1] = row[i + 1];
    }
    sum += __shfl_sync(~0u, inclusive, 31);
  }
  if (lane == 0) header.first_tile[0] = header.first_row[0] = 0;
}

// The producer's loads of one stage.
template <int kWarpgroups>
struct StageLoader {
  const ProductArguments& a;
  const CUtensorMap& rows_map;
  std::byte* stages;
  SharedHeader& header;

  __device__ std::byte* stage_at(const StageCursor& cursor) const { return stages + cursor.stage * a.stage_bytes; }
  __device__ int boxes_of(const Tile& tile) const {
    return a.tile_width <= kRowsPerBox ? 1 : (tile.num_rows + kRowsPerBox - 1) / kRowsPerBox;
  }
  __device__ int box_rows() const { return min(a.tile_width, kRowsPerBox); }

  // Also announces the rows' bytes, which load_rows() brings.
  __device__ void load_weights(const Tile& tile, int chunk, const StageCursor& cursor) const {
    const int bytes = tile.matrix.chunk_bytes();
    uint64_t* full = &header.full[cursor.stage];
    arrive_expecting(full, kWarpgroups * bytes + boxes_of(tile) * box_rows() * 128);
    const int last_tile = (a.num_outputs + 63) / 64 - 1;
    for (int w = 0; w < kWarpgroups; ++w) {
      // A warpgroup beyond the last outputs multiplies the last ones again, and does not store.
      const int64_t row_tile = min(tile.row_tile + w, last_tile);
      const uint8_t* packed = tile.matrix.memory + (row_tile * a.num_chunks + chunk) * bytes;
      copy_bulk(stage_at(cursor) + w * (a.rows_offset / kWarpgroups), packed, bytes, full);
    }
  }

  __device__ void load_rows(const Tile& tile, int chunk, const StageCursor& cursor) const {
    std::byte* rows = stage_at(cursor) + a.rows_offset;
    for (int box = 0; box < boxes_of(tile); ++box) {
      copy_box(rows + box * kRowsPerBox * 128, &rows_map, chunk * 64, tile.first_row + box * kRowsPerBox,
               &header.full[cursor.stage]);
    }
  }
};

// Weights do not depend on the kernel before this one, so a dense product begins to read them before that has finished.
template <int kWarpgroups>
__device__ void produce(const StageLoader<kWarpgroups>& loader) {
  const ProductArguments& a = loader.a;
  TileWalk<kWarpgroups> walk(a, loader.header);
  StageCursor cursor;
  Tile tile;
  if (!walk.next(tile)) return;
  int ahead = 0;
  if (a.row_offsets == nullptr) {
    ahead = min(a.num_stages, a.num_chunks);
    StageCursor early;
    for (int chunk = 0; chunk < ahead; ++chunk, early.advance(a.num_stages)) loader.load_weights(tile, chunk, early);
    wait_for_earlier_kernels();
  }
  do {
    for (int chunk = 0; chunk < a.num_chunks; ++chunk, cursor.advance(a.num_stages)) {
      if (chunk >= ahead) {
        wait_barrier(&loader.header.empty[cursor.stage], cursor.parity ^ 1);
        loader.load_weights(tile, chunk, cursor);
      }
      loader.load_rows(tile, chunk, cursor);
    }
    ahead = 0;
  } while (walk.next(tile));
}

// The sums of 64 outputs and kWidth rows: one instruction of up to 128 columns after the other. (Registers: one array of sums for
// all widths, and 192 as 128 + 64; otherwise ptxas keeps an array for each and lets every instruction wait for the last.)
template <int kWidth>
__device__ __forceinline__ void multiply_chunk(const WeightFragments& weights, uint32_t rows, bool is_first, float* sums) {
  constexpr int kColumns = kWidth < 128 ? kWidth : 128;
  constexpr int kRest = kWidth % kColumns;
#pragma unroll
  for (int step = 0; step < kChunkSteps; ++step) {
    const int accumulate = is_first && step == 0 ? 0 : 1;
#pragma unroll
    for (int column = 0; column + kColumns <= kWidth; column += kColumns) {
      wgmma<kColumns>(sums + column / 2, weights.registers[step], rows + 2 * step + column * 8, accumulate);
    }
    if constexpr (kRest > 0) {
      constexpr int kColumn = kWidth - kRest;
      wgmma<kRest>(sums + kColumn / 2, weights.registers[step], rows + 2 * step + kColumn * 8, accumulate);
    }
  }
}

// What a warpgroup reads for one tile.
struct TileOperands {
  const std::byte* stages;
  SharedHeader& header;
  int weights_offset;  // of this warpgroup in a stage
  int group_size;
};

// The compiler does not see that wgmma goes on reading its registers: this keeps their values in place up to here, and has them
// there before what follows.
__device__ __forceinline__ void pin(WeightFragments& fragments) {
#pragma unroll
  for (int step = 0; step < kChunkSteps; ++step) {
#pragma unroll
    for (int r = 0; r < 4; ++r) asm volatile("" : "+r"(fragments.registers[step][r])::"memory");
  }
}

__device__ __forceinline__ void keep(const WeightFragments& fragments) {
#pragma unroll
  for (int step = 0; step < kChunkSteps; ++step) {
#pragma unroll
    for (int r = 0; r < 4; ++r) asm volatile("" ::"r"(fragments.registers[step][r]) : "memory");
  }
}

__device__ __forceinline__ void copy(const WeightFragments& from, WeightFragments& to) {
#pragma unroll
  for (int step = 0; step < kChunkSteps; ++step) {
#pragma unroll
    for (int r = 0; r < 4; ++r) asm volatile("mov.b32 %0, %1;" : "=r"(to.registers[step][r]) : "r"(from.registers[step][r]));
  }
}

// A warpgroup's part in the products of one tile.
template <WeightKind kind, int kWidth>
struct ChunkStep {
  const ProductArguments& a;
  const TileOperands& operands;
  int thread;

  // Waits for the stage and brings its weights to the registers.
  __device__ __forceinline__ void load(const StageCursor& cursor, WeightFragments& fragments) const {
    wait_barrier(&operands.header.full[cursor.stage], cursor.parity);
    const std::byte* chunk = operands.stages + cursor.stage * a.stage_bytes + operands.weights_offset;
    load_fragments<kind>(reinterpret_cast<const uint8_t*>(chunk), thread, operands.group_size, fragments);
    pin(fragments);
  }
  // Describes the stage's rows of activations.
  __device__ __forceinline__ uint32_t rows_of(const StageCursor& cursor) const {
    return tile_descriptor(operands.stages + cursor.stage * a.stage_bytes + a.rows_offset);
  }
  // After the products that read it are complete.
  __device__ __forceinline__ void release(int stage) const {
    if (thread % 32 == 0) arrive(&operands.header.empty[stage]);
  }
};

// Adds the products of `num_groups` groups of kGroup chunks. While the tensor cores work on a group, the next one's weights come
// to the registers. (ptxas keeps that order only where a group is complete before the next one starts.)
template <WeightKind kind, int kWidth, int kGroup>
__device__ __forceinline__ void sum_groups(const ChunkStep<kind, kWidth>& step, int num_groups, bool is_start,
                                           StageCursor& cursor, float* sums) {
  const auto load = [&](StageCursor at, WeightFragments (&fragments)[kGroup]) {
#pragma unroll
    for (int i = 0; i < kGroup; ++i, at.advance(step.a.num_stages)) step.load(at, fragments[i]);
  };
  WeightFragments current[kGroup];
  load(cursor, current);
  for (int group = 0; group < num_groups; ++group) {
    StageCursor at = cursor;
    uint32_t rows[kGroup];
#pragma unroll
    for (int i = 0; i < kGroup; ++i, at.advance(step.a.num_stages)) rows[i] = step.rows_of(at);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < kGroup; ++i) multiply_chunk<kWidth>(current[i], rows[i], is_start && group == 0 && i == 0, sums);
    wgmma_commit();
    WeightFragments following[kGroup] = {};
    if (group + 1 < num_groups) load(at, following);
    wgmma_wait<0>();
#pragma unroll
    for (int i = 0; i < kGroup; ++i, cursor.advance(step.a.num_stages)) {
      step.release(cursor.stage);
      keep(current[i]);
      copy(following[i], current[i]);
    }
  }
}

template <WeightKind kind, int kWidth, bool kIsWide>
__device__ __forceinline__ void sum_tile(const ProductArguments& a, const TileOperands& operands, StageCursor& cursor,
                                         float* sums) {
  const ChunkStep<kind, kWidth> step{a, operands, static_cast<int>(threadIdx.x) % kWarpgroupThreads};
  if constexpr (kIsWide) {
    sum_groups<kind, kWidth, 1>(step, a.num_chunks, true, cursor, sums);
  } else {
    // Products of few rows are short: two chunks at a time hide what lies between them.
    const int num_pairs = a.num_chunks / 2;
    if (num_pairs > 0) sum_groups<kind, kWidth, 2>(step, num_pairs, true, cursor, sums);
    if (a.num_chunks % 2 != 0) sum_groups<kind, kWidth, 1>(step, 1, num_pairs == 0, cursor, sums);
  }
#pragma unroll
  for (int i = 0; i < kWidth / 2; ++i) asm volatile("" : "+f"(sums[i])::"memory");
}

// __fdividef(x, y) is 0 for y beyond 2^126, which is the limit for very negative x.
__device__ __forceinline__ float silu(float x) { return __fdividef(x, 1.0f + __expf(-x)); }

// An 8 × 8 matrix of BF16 over a warp, two neighbours of a row in each lane, turned.
__device__ __forceinline__ uint32_t turned(__nv_bfloat162 pair) {
  uint32_t result;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(result) : "r"(bits_of(pair)));
  return result;
}

// sums as wgmma leaves them: kernels/cuda/wgmma.cuh. Lanes hold neighbouring rows of activations; BF16 results are turned, so
// that each lane stores neighbouring outputs of one row. Addresses are walked: a tile has up to 128 stores a thread.
template <int kWidth>
__device__ __forceinline__ void store_f32(const ProductArguments& a, const Tile& tile, int output, const float* sums) {
  const int column = static_cast<int>(threadIdx.x) % 4 * 2;
  const int rows_left = tile.num_rows - column;
  const bool has_low = output < a.num_outputs, has_high = output + 8 < a.num_outputs;
  float* y = static_cast<float*>(a.y) + static_cast<int64_t>(tile.first_row + column) * a.num_outputs + output;
#pragma unroll
  for (int i = 0; i < kWidth / 8; ++i, y += 8 * static_cast<int64_t>(a.num_outputs)) {
    float* next_row = y + a.num_outputs;
    if (8 * i < rows_left && has_low) y[0] = sums[4 * i];
    if (8 * i < rows_left && has_high) y[8] = sums[4 * i + 2];
    if (8 * i + 1 < rows_left && has_low) next_row[0] = sums[4 * i + 1];
    if (8 * i + 1 < rows_left && has_high) next_row[8] = sums[4 * i + 3];
  }
}

// Two neighbouring outputs; `left` of them are inside the matrix.
__device__ __forceinline__ void store_pair(__nv_bfloat16* y, int left, bool is_aligned, uint32_t pair) {
  if (left >= 2 && is_aligned) {
    *reinterpret_cast<uint32_t*>(y) = pair;
  } else {
    if (left >= 1) y[0] = pair_of(pair).x;
    if (left >= 2) y[1] = pair_of(pair).y;
  }
}

// first_output: of the thread's warp, a multiple of 16.
template <int kWidth, bool kIsSwiGlu>
__device__ __forceinline__ void store_bf16(const ProductArguments& a, const Tile& tile, int first_output, const float* sums) {
  const int g = static_cast<int>(threadIdx.x) % 32 / 4, c = static_cast<int>(threadIdx.x) % 4;
  const int num_outputs = kIsSwiGlu ? a.num_outputs / 2 : a.num_outputs;
  const int output = (kIsSwiGlu ? first_output / 2 : first_output) + 2 * c;
  const int left = num_outputs - output, rows_left = tile.num_rows - g;
  const bool is_aligned = num_outputs % 2 == 0;
  auto* y = static_cast<__nv_bfloat16*>(a.y) + static_cast<int64_t>(tile.first_row + g) * num_outputs + output;
#pragma unroll
  for (int i = 0; i < kWidth / 8; ++i, y += 8 * static_cast<int64_t>(num_outputs)) {
    const float* sum = sums + 4 * i;
    if constexpr (kIsSwiGlu) {
      const uint32_t pair = turned(__floats2bfloat162_rn(silu(sum[0]) * sum[2], silu(sum[1]) * sum[3]));
      if (8 * i < rows_left) store_pair(y, left, is_aligned, pair);
    } else {
      const uint32_t low = turned(__floats2bfloat162_rn(sum[0], sum[1])), high = turned(__floats2bfloat162_rn(sum[2], sum[3]));
      if (8 * i < rows_left) store_pair(y, left, is_aligned, low);
      if (8 * i < rows_left) store_pair(y + 8, left - 8, is_aligned, high);
    }
  }
}

template <int kWidth>
__device__ __forceinline__ void store_tile(const ProductArguments& a, const Tile& tile, int row_tile, const float* sums) {
  const int thread = static_cast<int>(threadIdx.x) % kWarpgroupThreads;
  const int first_output = row_tile * 64 + thread / 32 * 16;
  if (a.epilogue == Epilogue::kF32) {
    store_f32<kWidth>(a, tile, first_output + thread % 32 / 4, sums);
  } else if (a.epilogue == Epilogue::kBF16) {
    store_bf16<kWidth, false>(a, tile, first_output, sums);
  } else {
    store_bf16<kWidth, true>(a, tile, first_output, sums);
  }
}

template <int kWidth, bool kIsWide>
__device__ __forceinline__ void compute_tile(const ProductArguments& a, const Tile& tile, const TileOperands& operands,
                                             StageCursor& cursor, int row_tile, float* sums) {
  switch (tile.matrix.kind) {
    case WeightKind::kInt8:
      sum_tile<WeightKind::kInt8, kWidth, kIsWide>(a, operands, cursor, sums);
      break;
    case WeightKind::kInt4:
      sum_tile<WeightKind::kInt4, kWidth, kIsWide>(a, operands, cursor, sums);
      break;
    default:
      sum_tile<WeightKind::kBF16, kWidth, kIsWide>(a, operands, cursor, sums);
      break;
  }
  if (row_tile * 64 < a.num_outputs) store_tile<kWidth>(a, tile, row_tile, sums);
}

// kMaxWidth decides the registers: 64 (narrow tiles) or 256 (wide ones). A tile with few rows takes narrow instructions.
template <int kMaxWidth>
__device__ __forceinline__ void dispatch_width(const ProductArguments& a, const Tile& tile, const TileOperands& operands,
                                               StageCursor& cursor, int row_tile, float* sums) {
  const auto compute = [&]<int kWidth>() { compute_tile<kWidth, (kMaxWidth > 64)>(a, tile, operands, cursor, row_tile, sums); };
  if constexpr (kMaxWidth == 64) {
    if (tile.num_rows <= 8) return compute.template operator()<8>();
    if (tile.num_rows <= 16) return compute.template operator()<16>();
    if (tile.num_rows <= 32) return compute.template operator()<32>();
    return compute.template operator()<64>();
  } else {
    if (tile.num_rows <= 64) return compute.template operator()<64>();
    if (tile.num_rows <= 128) return compute.template operator()<128>();
    if (tile.num_rows <= 192) return compute.template operator()<192>();
    return compute.template operator()<256>();
  }
}

template <int kWarpgroups, int kMaxWidth>
__device__ __forceinline__ void consume(const ProductArguments& a, const std::byte* stages, SharedHeader& header) {
  const int warpgroup = static_cast<int>(threadIdx.x) / kWarpgroupThreads;
  TileWalk<kWarpgroups> walk(a, header);
  StageCursor cursor;
  Tile tile;
  float sums[kMaxWidth / 2];
  while (walk.next(tile)) {
    const TileOperands operands{stages, header, warpgroup * (a.rows_offset / kWarpgroups), tile.matrix.group_size};
    dispatch_width<kMaxWidth>(a, tile, operands, cursor, tile.row_tile + warpgroup, sums);
  }
}

// Wide tiles need more registers than an even share: the producer's warpgroup gives up its own.
template <int kMaxWidth>
constexpr int producer_threads() {
  return kMaxWidth == 64 ? 32 : kWarpgroupThreads;
}
constexpr int kProducerRegisters = 40;
constexpr int kConsumerRegisters = 232;

template <int kWarpgroups, int kMaxWidth>
__global__ void __launch_bounds__(producer_threads<kMaxWidth>() + kWarpgroups * kWarpgroupThreads,
                                  kMaxWidth > 64 ? 1 : 3)
    product_kernel(const __grid_constant__ ProductArguments arguments, const __grid_constant__ CUtensorMap rows_map) {
  extern __shared__ std::byte shared[];
  // Swizzled tiles begin at multiples of 1024 bytes.
  std::byte* stages = shared + (1024 - shared_address(shared) % 1024) % 1024;
  __shared__ SharedHeader header;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const bool is_producer = warp >= kWarpgroups * 4;

  if (threadIdx.x == 0) {
    for (int stage = 0; stage < arguments.num_stages; ++stage) {
      init_barrier(&header.full[stage], 1);
      init_barrier(&header.empty[stage], 4 * kWarpgroups);  // one of each warp that reads
    }
    fence_barrier_init();
  }
  allow_next_kernel();
  if (arguments.row_offsets != nullptr) wait_for_earlier_kernels();
  if (warp == kWarpgroups * 4) number_tiles<kWarpgroups>(arguments, header);
  __syncthreads();

  if (is_producer) {
    if constexpr (kMaxWidth > 64) give_up_registers<kProducerRegisters>();
    if (threadIdx.x == kWarpgroups * kWarpgroupThreads) produce<kWarpgroups>({arguments, rows_map, stages, header});
  } else {
    if constexpr (kMaxWidth > 64) take_registers<kConsumerRegisters>();
    consume<kWarpgroups, kMaxWidth>(arguments, stages, header);
  }
}

struct Product {
  const Tensor& x;
  const DeviceMatrices& w;
  Tensor& y;
  const Tensor* row_offsets = nullptr;
  int64_t num_rows = 0;  // dense: exact; grouped: the most
  Epilogue epilogue = Epilogue::kF32;
};

size_t most_chunk_bytes(const DeviceMatrices& w) {
  size_t most = 0;
  for (const WeightFormat& format : w.formats) {
    most = std::max(most, device_matrix_bytes(format, {kTileRows, kChunkInputs}));
  }
  return most;
}

// As in the table, for products of one matrix: its place is known on the host, which saves the kernel a read.
MatrixEntry dense_entry(const Product& product) {
  const WeightFormat& format = product.w.formats.front();
  return {reinterpret_cast<const uint8_t*>(product.w.memory.bytes()), format.kind, format.group_size};
}

template <int kWarpgroups, int kMaxWidth>
void launch_product(const Product& product, const ProductPlan& plan, Stream& stream) {
  const auto kernel = product_kernel<kWarpgroups, kMaxWidth>;
  static const bool is_prepared = [kernel] {
    CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kMaxSharedBytes));
    return true;
  }();
  CHECK(is_prepared);
  const int64_t num_columns = product.w.shape.num_columns;
  const int chunk_room = static_cast<int>((most_chunk_bytes(product.w) + 127) / 128 * 128);
  const int rows_offset = (kWarpgroups * chunk_room + 1023) / 1024 * 1024;
  const int stage_bytes = rows_offset + (plan.tile_width * 128 + 1023) / 1024 * 1024;
  const int num_stages = std::min(kMaxStages, (plan.shared_bytes - 1024) / stage_bytes);
  CHECK_GE(num_stages, 4) << "too little shared memory for two groups of chunks";
  const ProductArguments arguments{.table = product.w.table.data<int64_t>(),
                                   .row_offsets = product.row_offsets ? product.row_offsets->data<int32_t>() : nullptr,
                                   .dense = dense_entry(product),
                                   .y = product.y.bytes(),
                                   .num_matrices = product.w.num_matrices(),
                                   .num_rows = static_cast<int>(product.num_rows),
                                   .num_outputs = static_cast<int>(product.w.shape.num_rows),
                                   .num_chunks = static_cast<int>((num_columns + kChunkInputs - 1) / kChunkInputs),
                                   .tile_width = plan.tile_width,
                                   .num_stages = num_stages,
                                   .stage_bytes = stage_bytes,
                                   .rows_offset = rows_offset,
                                   .epilogue = product.epilogue};
  const CUtensorMap rows_map = row_tiles_map(product.x, std::min(plan.tile_width, kRowsPerBox));
  const LaunchShape shape{.blocks = dim3(plan.num_blocks),
                          .threads = dim3(producer_threads<kMaxWidth>() + kWarpgroups * kWarpgroupThreads),
                          .shared_bytes = static_cast<size_t>(num_stages * stage_bytes + 1024)};
  cuda::launch(kernel, shape, stream, arguments, rows_map);
}

void run(const Product& product, const ProductPlan& plan, Stream& stream) {
  if (product.num_rows == 0) return;
  if (plan.tile_width > 64) return launch_product<2, 256>(product, plan, stream);
  launch_product<1, 64>(product, plan, stream);
}

void check_operands(const Product& product) {
  const MatrixShape& shape = product.w.shape;
  CHECK(product.x.dtype() == DType::kBF16 && product.x.dim(1) == shape.num_columns) << product.x.shape().to_string();
  CHECK_EQ(shape.num_columns % 8, 0) << "rows are read in pieces of 16 bytes";
  CHECK(product.x.device().kind == DeviceKind::kCuda && product.y.device() == product.x.device());
  CHECK_LE(product.w.num_matrices(), kMaxMatrices);
  if (product.epilogue == Epilogue::kSwiGlu) CHECK_EQ(shape.num_rows % 16, 0) << "gate and up lie in turns of eight rows";
}

Epilogue epilogue_of(const Tensor& y) {
  CHECK(y.dtype() == DType::kF32 || y.dtype() == DType::kBF16);
  return y.dtype() == DType::kF32 ? Epilogue::kF32 : Epilogue::kBF16;
}

void run_grouped(const SortedRows& rows, const DeviceMatrices& w, Tensor& y, Epilogue epilogue, Stream& stream) {
  CHECK_EQ(rows.row_offsets.num_elements(), w.num_matrices() + 1);
  CHECK_EQ(y.dim(1), epilogue == Epilogue::kSwiGlu ? w.shape.num_rows / 2 : w.shape.num_rows);
  const Product product{rows.x, w, y, &rows.row_offsets, rows.x.dim(0), epilogue};
  check_operands(product);
  run(product, grouped_plan(w, rows.expected_rows), stream);
}

}  // namespace

void linear(const Tensor& x, const DeviceMatrices& w, Tensor& y, Stream& stream) {
  CHECK_EQ(y.dim(1), w.shape.num_rows);
  CHECK_LE(y.dim(0), x.dim(0));
  const Product product{x, w, y, nullptr, y.dim(0), epilogue_of(y)};
  check_operands(product);
  run(product, dense_plan(w, y.dim(0)), stream);
}

void expert_gate_up(const SortedRows& rows, const DeviceMatrices& w, Tensor& activated, Stream& stream) {
  CHECK(activated.dtype() == DType::kBF16);
  run_grouped(rows, w, activated, Epilogue::kSwiGlu, stream);
}

void expert_down(const SortedRows& rows, const DeviceMatrices& w, Tensor& y, Stream& stream) {
  run_grouped(rows, w, y, epilogue_of(y), stream);
}

}  // namespace skipper::cuda
