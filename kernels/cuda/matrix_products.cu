// One persistent kernel for all products: weights are the A operand of wgmma, from registers, and rows of activations its B
// operand, from shared memory. So 64 outputs meet 8 to 256 rows with the same instruction, a weight is read once for all of
// them, and codes are turned into BF16 on the way to the registers.
//
// A block is one producer warp, which keeps the pipeline's stages full through the copy engine, and one warpgroup, or two for
// wide tiles, each with its own 64 outputs; they share the rows. A stage holds one chunk of 64 inputs, or two of narrow tiles:
// the packed weights of each warpgroup and the rows [tile_width][64]. Tiles (matrix, outputs, rows) are numbered matrix by
// matrix; block b takes tiles b, b + grid, ... and the pipeline runs on from one tile to the next.
#include <cuda_runtime.h>
#include <glog/logging.h>

#include <algorithm>

#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/matrix_products.h"
#include "kernels/cuda/product_plan.h"
#include "kernels/cuda/product_tile.cuh"
#include "kernels/cuda/tensor_map.h"
#include "kernels/cuda/weight_fragments.cuh"
#include "kernels/cuda/wgmma.cuh"
#include "tensor/cuda/cuda_check.h"

namespace skipper::cuda {
namespace {

constexpr int kMaxStages = 48;
constexpr int kMaxMatrices = 512;
constexpr int kRowsPerBox = 64;  // of wide tiles; narrow ones are one box

// Products of few rows are short: two chunks at a time halve the time between them.
template <bool kIsWide>
constexpr int kChunksPerStage = kIsWide ? 1 : 2;

struct SharedHeader {
  uint64_t full[kMaxStages];
  uint64_t empty[kMaxStages];
  int first_tile[kMaxMatrices + 1];  // of each matrix; the last is the number of tiles
  int first_row[kMaxMatrices + 1];   // row_offsets
};

// The table of the matrices in shared memory, at the beginning of what is allocated for the launch.
extern __shared__ longlong2 shared_table[];

__host__ __device__ constexpr int table_bytes(int num_matrices) { return num_matrices * static_cast<int>(sizeof(longlong2)); }

// No kernel of a step writes the table, so it is read before the kernels before this one have finished.
__device__ __forceinline__ void copy_table(const ProductArguments& a) {
  for (int matrix = static_cast<int>(threadIdx.x); matrix < a.num_matrices; matrix += static_cast<int>(blockDim.x)) {
    shared_table[matrix] = reinterpret_cast<const longlong2*>(a.table)[matrix];
  }
}

__device__ __forceinline__ MatrixEntry entry_of(const ProductArguments& a, int matrix) {
  if (a.row_offsets == nullptr) return a.dense;
  const longlong2 entry = shared_table[matrix];
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
    bool is_absent[kPerLane + 1];
    for (int i = 0; i <= kPerLane; ++i) {
      const int matrix = min(base + i, a.num_matrices);
      is_absent[i] = a.has_absent_matrices && matrix < a.num_matrices && __ldg(a.table + 2 * matrix) == 0;
      row[i] = a.row_offsets == nullptr ? matrix * a.num_rows : __ldcg(a.row_offsets + matrix);
    }
    for (int i = 0; i < kPerLane; ++i) {
      const int num_rows = is_absent[i] ? 0 : row[i + 1] - row[i];
      tiles[i + 1] = tiles[i] + (num_rows + a.tile_width - 1) / a.tile_width * block_tiles;
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

// The producer's loads of one tile. One thread issues them all, and for few rows its speed is the product's: what does not change
// from chunk to chunk is worked out before.
template <int kWarpgroups, int kGroup>
class TileLoader {
 public:
  __device__ TileLoader(const ProductArguments& a, const CUtensorMap& rows_map, std::byte* stages, uint64_t* full,
                        const Tile& tile)
      : rows_map_(rows_map), a_(a), stages_(stages), full_(full), chunk_bytes_(tile.matrix.chunk_bytes()) {
    // A warpgroup beyond the last outputs multiplies the last ones again, and does not store.
    if constexpr (kReadsOnce) policy_ = read_once_policy();
    const int last_tile = (a.num_outputs + 63) / 64 - 1;
    for (int w = 0; w < kWarpgroups; ++w) {
      const int64_t row_tile = min(tile.row_tile + w, last_tile);
      weights_[w] = tile.matrix.memory + row_tile * a.num_chunks * chunk_bytes_;
    }
    first_row_ = tile.first_row;
    num_boxes_ = a.tile_width <= kRowsPerBox ? 1 : (tile.num_rows + kRowsPerBox - 1) / kRowsPerBox;
    bytes_per_chunk_ = kWarpgroups * chunk_bytes_ + num_boxes_ * min(a.tile_width, kRowsPerBox) * 128;
  }

  // Also announces the bytes of load_rows(). Groups ascend.
  __device__ __forceinline__ void load_weights(int group, int stage) {
    const int count = chunks_of(group);
    uint64_t* full = full_ + stage;
    arrive_expecting(full, count * bytes_per_chunk_);
    std::byte* destination = stages_ + stage * a_.stage_bytes;
#pragma unroll
    for (int w = 0; w < kWarpgroups; ++w) {
      std::byte* const place = destination + w * (a_.rows_offset / kWarpgroups);
      if constexpr (kReadsOnce) {
        copy_bulk(place, weights_[w], count * chunk_bytes_, full, policy_);
      } else {
        copy_bulk(place, weights_[w], count * chunk_bytes_, full);
      }
      weights_[w] += kGroup * chunk_bytes_;
    }
  }

  __device__ __forceinline__ void load_rows(int group, int stage) const {
    std::byte* destination = stages_ + stage * a_.stage_bytes + a_.rows_offset;
    const int count = chunks_of(group);
#pragma unroll
    for (int i = 0; i < kGroup; ++i) {
      if (i >= count) break;
      const int column = (group * kGroup + i) * 64;
      copy_box(destination + i * a_.rows_bytes, &rows_map_, column, first_row_, full_ + stage);
#pragma unroll 1
      for (int box = 1; box < num_boxes_; ++box) {
        copy_box(destination + i * a_.rows_bytes + box * kRowsPerBox * 128, &rows_map_, column, first_row_ + box * kRowsPerBox,
                 full_ + stage);
      }
    }
  }

 private:
  // Of wide tiles, several blocks read the same weights.
  static constexpr bool kReadsOnce = kWarpgroups == 1;

  __device__ __forceinline__ int chunks_of(int group) const { return min(kGroup, a_.num_chunks - group * kGroup); }

  const CUtensorMap& rows_map_;
  const ProductArguments& a_;
  std::byte* stages_;
  uint64_t* full_;
  int chunk_bytes_, first_row_, num_boxes_, bytes_per_chunk_;
  const uint8_t* weights_[kWarpgroups];
  uint64_t policy_ = 0;
};

// Weights do not depend on the kernel before this one: where it is known which tiles there are, they are read before that has
// finished.
template <int kWarpgroups, int kGroup>
__device__ void produce(const ProductArguments& a, const CUtensorMap& rows_map, std::byte* stages, SharedHeader& header) {
  TileWalk<kWarpgroups> walk(a, header);
  StageCursor cursor;
  Tile tile;
  const int num_groups = (a.num_chunks + kGroup - 1) / kGroup;
  bool is_early = a.knows_tiles_early();
  while (walk.next(tile)) {
    TileLoader<kWarpgroups, kGroup> loader(a, rows_map, stages, header.full, tile);
    int group = 0;
    if (is_early) {
      const int ahead = min(a.num_stages, num_groups);
#pragma unroll 1
      for (int stage = 0; stage < ahead; ++stage) loader.load_weights(stage, stage);
      wait_for_earlier_kernels();
#pragma unroll 1
      for (; group < ahead; ++group, cursor.advance(a.num_stages)) loader.load_rows(group, cursor.stage);
      is_early = false;
    }
#pragma unroll 1
    for (; group < num_groups; ++group, cursor.advance(a.num_stages)) {
      wait_barrier(&header.empty[cursor.stage], cursor.parity ^ 1);
      loader.load_weights(group, cursor.stage);
      loader.load_rows(group, cursor.stage);
    }
  }
  if (is_early) wait_for_earlier_kernels();  // every block does, also one without a tile
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
  int chunk_bytes;
  int group_size;
};

// A warpgroup's part in the products of one tile.
template <WeightKind kind, int kWidth>
struct StageStep {
  const ProductArguments& a;
  const TileOperands& operands;
  int thread;

  // Waits for the stage and brings the weights of its first kCount chunks to the registers.
  template <int kCount>
  __device__ __forceinline__ void load(const StageCursor& cursor, WeightFragments (&fragments)[kCount]) const {
    wait_barrier(&operands.header.full[cursor.stage], cursor.parity);
    const std::byte* chunks = operands.stages + cursor.stage * a.stage_bytes + operands.weights_offset;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const std::byte* chunk = chunks + i * operands.chunk_bytes;
      load_fragments<kind>(reinterpret_cast<const uint8_t*>(chunk), thread, operands.group_size, fragments[i]);
      pin(fragments[i]);
    }
  }
  // Describes a chunk's rows of activations.
  __device__ __forceinline__ uint32_t rows_of(const StageCursor& cursor, int chunk) const {
    return tile_descriptor(operands.stages + cursor.stage * a.stage_bytes + a.rows_offset + chunk * a.rows_bytes);
  }
  // After the products that read it are complete.
  __device__ __forceinline__ void release(int stage) const {
    if (thread % 32 == 0) arrive(&operands.header.empty[stage]);
  }
};

// Queues the products of one stage.
template <WeightKind kind, int kWidth, int kCount>
__device__ __forceinline__ void begin_stage(const StageStep<kind, kWidth>& step, const StageCursor& cursor, bool is_first,
                                            const WeightFragments (&weights)[kCount], float* sums) {
  uint32_t rows[kCount];
#pragma unroll
  for (int chunk = 0; chunk < kCount; ++chunk) rows[chunk] = step.rows_of(cursor, chunk);
  wgmma_fence();
#pragma unroll
  for (int chunk = 0; chunk < kCount; ++chunk) {
    multiply_chunk<kWidth>(weights[chunk], rows[chunk], is_first && chunk == 0, sums);
  }
  wgmma_commit();
}

// Until all but the last kInFlight stages that were queued are complete; `fragments` were the weights of one of these.
template <int kInFlight, int kCount>
__device__ __forceinline__ void end_stage(const WeightFragments (&fragments)[kCount]) {
  wgmma_wait<kInFlight>();
#pragma unroll
  for (int chunk = 0; chunk < kCount; ++chunk) keep(fragments[chunk]);
}

// Adds the products of `num_stages` stages with kCount chunks each, two by two: while the tensor cores work on a stage, the next
// one's weights come to other registers and its products are queued. (More than two, or a stage in flight where the loop begins
// again, and ptxas lets every instruction wait for the last.)
template <WeightKind kind, int kWidth, int kCount>
__device__ __forceinline__ void sum_stages(const StageStep<kind, kWidth>& step, int num_stages, StageCursor& cursor,
                                           float* sums) {
  const auto next_stage = [&] {
    const int stage = cursor.stage;
    cursor.advance(step.a.num_stages);
    return stage;
  };
  WeightFragments even[kCount], odd[kCount];
  int i = 0;
  if (num_stages % 2 != 0) {
    step.load(cursor, even);
    begin_stage(step, cursor, false, even, sums);
    end_stage<0>(even);
    step.release(next_stage());
    i = 1;
  }
  if (i >= num_stages) return;
  step.load(cursor, even);
#pragma unroll 1
  for (; i < num_stages; i += 2) {
    begin_stage(step, cursor, false, even, sums);
    const int even_stage = next_stage();
    step.load(cursor, odd);
    begin_stage(step, cursor, false, odd, sums);
    end_stage<1>(even);
    step.release(even_stage);
    const int odd_stage = next_stage();
    if (i + 2 < num_stages) step.load(cursor, even);
    end_stage<0>(odd);
    step.release(odd_stage);
  }
}

// The same for wide tiles, whose products take longer than what lies between them: one stage of one chunk at a time, which is up
// to 6 % faster for BF16. The first product of a tile does not add.
template <WeightKind kind, int kWidth>
__device__ __forceinline__ void sum_long_stages(const StageStep<kind, kWidth>& step, int num_stages, StageCursor& cursor,
                                                float* sums) {
  WeightFragments current[1];
  step.load(cursor, current);
#pragma unroll 1
  for (int i = 0; i < num_stages; ++i) {
    begin_stage(step, cursor, i == 0, current, sums);
    const int stage = cursor.stage;
    cursor.advance(step.a.num_stages);
    WeightFragments following[1] = {};
    if (i + 1 < num_stages) step.load(cursor, following);
    end_stage<0>(current);
    step.release(stage);
    copy(following[0], current[0]);
  }
}

template <WeightKind kind, int kWidth, bool kIsWide>
__device__ __forceinline__ void sum_tile(const ProductArguments& a, const TileOperands& operands, StageCursor& cursor,
                                         float* sums) {
  const StageStep<kind, kWidth> step{a, operands, static_cast<int>(threadIdx.x) % kWarpgroupThreads};
  // (ptxas serialises narrow tiles unless their sums begin as zeros, and wide ones if they do.)
  if constexpr (kIsWide) {
    sum_long_stages(step, a.num_chunks, cursor, sums);
  } else {
    constexpr int kGroup = kChunksPerStage<kIsWide>;
#pragma unroll
    for (int i = 0; i < kWidth / 2; ++i) sums[i] = 0.0f;
    sum_stages<kind, kWidth, kGroup>(step, a.num_chunks / kGroup, cursor, sums);
    if (a.num_chunks % kGroup != 0) sum_stages<kind, kWidth, 1>(step, 1, cursor, sums);
  }
#pragma unroll
  for (int i = 0; i < kWidth / 2; ++i) asm volatile("" : "+f"(sums[i])::"memory");
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

// kMaxWidth decides the registers: 32 or 64 (narrow tiles) or 256 (wide ones). A tile with few rows takes narrow instructions.
template <int kMaxWidth>
__device__ __forceinline__ void dispatch_width(const ProductArguments& a, const Tile& tile, const TileOperands& operands,
                                               StageCursor& cursor, int row_tile, float* sums) {
  const auto compute = [&]<int kWidth>() { compute_tile<kWidth, (kMaxWidth > 64)>(a, tile, operands, cursor, row_tile, sums); };
  if constexpr (kMaxWidth <= 64) {
    if (tile.num_rows <= 8) return compute.template operator()<8>();
    if (tile.num_rows <= 16) return compute.template operator()<16>();
    if (kMaxWidth == 32 || tile.num_rows <= 32) return compute.template operator()<32>();
    if constexpr (kMaxWidth == 64) return compute.template operator()<64>();
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
    const TileOperands operands{stages, header, warpgroup * (a.rows_offset / kWarpgroups), tile.matrix.chunk_bytes(),
                                tile.matrix.group_size};
    dispatch_width<kMaxWidth>(a, tile, operands, cursor, tile.row_tile + warpgroup, sums);
  }
}

// Wide tiles need more registers than an even share: the producer's warpgroup gives up its own.
template <int kMaxWidth>
constexpr int producer_threads() {
  return kMaxWidth <= 64 ? 32 : kWarpgroupThreads;
}
constexpr int kProducerRegisters = 40, kConsumerRegisters = 232;

template <int kMaxWidth>
constexpr int blocks_per_multiprocessor() {
  return kMaxWidth == 32 ? 3 : kMaxWidth == 64 ? 2 : 1;
}

template <int kWarpgroups, int kMaxWidth>
__global__ void __launch_bounds__(producer_threads<kMaxWidth>() + kWarpgroups * kWarpgroupThreads,
                                  blocks_per_multiprocessor<kMaxWidth>())
    product_kernel(const __grid_constant__ ProductArguments arguments, const __grid_constant__ CUtensorMap rows_map) {
  // Swizzled tiles begin at multiples of 1024 bytes.
  std::byte* stages = reinterpret_cast<std::byte*>(shared_table) + table_bytes(arguments.num_matrices);
  stages += (1024 - shared_address(stages) % 1024) % 1024;
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
  if (arguments.row_offsets != nullptr) copy_table(arguments);
  if (!arguments.knows_tiles_early()) wait_for_earlier_kernels();
  // Not before: what the offsets come from is complete when the next kernel begins, which may rely on that.
  allow_next_kernel();
  if (warp == kWarpgroups * 4) number_tiles<kWarpgroups>(arguments, header);
  __syncthreads();

  if (is_producer) {
    if constexpr (kMaxWidth > 64) give_up_registers<kProducerRegisters>();
    constexpr int kGroup = kChunksPerStage<(kMaxWidth > 64)>;
    if (threadIdx.x == kWarpgroups * kWarpgroupThreads) produce<kWarpgroups, kGroup>(arguments, rows_map, stages, header);
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
  bool has_old_offsets = false;
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
  constexpr int kGroup = kChunksPerStage<(kMaxWidth > 64)>;
  const int rows_offset = (kWarpgroups * kGroup * chunk_room + 1023) / 1024 * 1024;
  const int rows_bytes = plan.tile_width * 128;  // a multiple of 1024
  const int stage_bytes = rows_offset + kGroup * rows_bytes;
  const int beside_stages = 1024 + table_bytes(product.w.num_matrices());
  const int num_stages = std::min(kMaxStages, (plan.shared_bytes - beside_stages) / stage_bytes);
  CHECK_GE(num_stages, 2);
  const ProductArguments arguments{.table = product.w.table.data<int64_t>(),
                                   .row_offsets = product.row_offsets ? product.row_offsets->data<int32_t>() : nullptr,
                                   .has_old_offsets = product.has_old_offsets,
                                   .dense = dense_entry(product),
                                   .y = product.y.bytes(),
                                   .has_absent_matrices = product.w.has_absent(),
                                   .num_matrices = product.w.num_matrices(),
                                   .num_rows = static_cast<int>(product.num_rows),
                                   .num_outputs = static_cast<int>(product.w.shape.num_rows),
                                   .num_chunks = static_cast<int>((num_columns + kChunkInputs - 1) / kChunkInputs),
                                   .tile_width = plan.tile_width,
                                   .num_stages = num_stages,
                                   .stage_bytes = stage_bytes,
                                   .rows_offset = rows_offset,
                                   .rows_bytes = rows_bytes,
                                   .epilogue = product.epilogue};
  const CUtensorMap rows_map = row_tiles_map(product.x, std::min(plan.tile_width, kRowsPerBox));
  const LaunchShape shape{.blocks = dim3(plan.num_blocks),
                          .threads = dim3(producer_threads<kMaxWidth>() + kWarpgroups * kWarpgroupThreads),
                          .shared_bytes = static_cast<size_t>(num_stages * stage_bytes + beside_stages)};
  cuda::launch(kernel, shape, stream, arguments, rows_map);
}

void run(const Product& product, const ProductPlan& plan, Stream& stream) {
  if (product.num_rows == 0) return;
  if (plan.tile_width > 64) return launch_product<2, 256>(product, plan, stream);
  if (plan.tile_width > 32) return launch_product<1, 64>(product, plan, stream);
  launch_product<1, 32>(product, plan, stream);
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

void run_grouped(const SortedRows& rows, bool has_old_offsets, const DeviceMatrices& w, Tensor& y, Epilogue epilogue,
                 Stream& stream) {
  CHECK_EQ(rows.row_offsets.num_elements(), w.num_matrices() + 1);
  CHECK_EQ(y.dim(1), epilogue == Epilogue::kSwiGlu ? w.shape.num_rows / 2 : w.shape.num_rows);
  const Product product{rows.x, w, y, &rows.row_offsets, has_old_offsets, rows.x.dim(0), epilogue};
  check_operands(product);
  run(product, grouped_plan(w, rows.expected_rows, rows.x.dim(0)), stream);
}

}  // namespace

void linear(const Tensor& x, const DeviceMatrices& w, Tensor& y, Stream& stream) {
  CHECK_EQ(y.dim(1), w.shape.num_rows);
  CHECK_LE(y.dim(0), x.dim(0));
  const Product product{x, w, y, nullptr, false, y.dim(0), epilogue_of(y)};
  check_operands(product);
  run(product, dense_plan(w, y.dim(0)), stream);
}

void expert_gate_up(const SortedRows& rows, const DeviceMatrices& w, Tensor& activated, Stream& stream) {
  CHECK(activated.dtype() == DType::kBF16);
  run_grouped(rows, false, w, activated, Epilogue::kSwiGlu, stream);
}

void expert_down(const SortedRows& rows, const DeviceMatrices& w, Tensor& y, Stream& stream) {
  run_grouped(rows, true, w, y, epilogue_of(y), stream);
}

}  // namespace skipper::cuda
