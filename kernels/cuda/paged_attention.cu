// A warpgroup holds 64 rows: the heads that share a key/value head, of one query or of consecutive ones. Tiles of 64 positions
// come to shared memory while the one before is multiplied (wgmma). In a prefill a block goes through all positions of its
// queries; in decode it takes some splits of one sequence, leaves their sums in memory, and the last block of the sequence and
// head to finish folds them. Both do the same to a row, so its bits are the same.
#include "kernels/cuda/paged_attention.h"

#include <algorithm>

#include "kernels/cuda/attention_rows.cuh"
#include "kernels/cuda/attention_tiles.cuh"
#include "kernels/cuda/gpu_operands.h"
#include "kernels/cuda/launch.cuh"

namespace skipper::cuda {
namespace {

constexpr int kWarpgroupRows = 64;
constexpr int kPrefillWarpgroups = 2;
constexpr int kPrefillRows = kPrefillWarpgroups * kWarpgroupRows;
constexpr int kPrefillThreads = 128 * kPrefillWarpgroups;
constexpr int kDecodeThreads = 128;
// Blocks of a decode step: about four per multiprocessor of a GPU with 132, two at a time.
constexpr int64_t kDecodeBlocks = 512;
constexpr int kSplitTiles = static_cast<int>(kSplitPositions) / kTileKeys;

// What decode leaves of a row and split: D sums, the highest score and the total weight, padded to 16 bytes.
constexpr int kRecordExtra = 4;
template <int kHeadDim>
constexpr int kRecordFloats = kHeadDim + kRecordExtra;

struct AttentionArguments {
  const __nv_bfloat16* q;
  const __nv_bfloat16* k_cache;
  const __nv_bfloat16* v_cache;
  const int32_t* query_offsets;
  const int32_t* first_position;
  const int32_t* block_tables;
  __nv_bfloat16* out;
  float* partial;     // [sequence][split][head] records
  int32_t* arrivals;  // [sequence][kv_head] splits done; 0 between launches
  int num_rows;
  int num_sequences;
  int kv_heads;
  int group;  // heads of a key/value head
  int max_blocks;
  int block_size;
  int max_splits;
  float scale;  // scores become exponents of 2

  __device__ int64_t row_elements(int head_dim) const { return static_cast<int64_t>(kv_heads) * group * head_dim; }
};

// One sequence's part of the step.
struct SequenceStep {
  int first_row;
  int num_queries;
  int first_position;

  __device__ int length() const { return first_position + num_queries; }
};

__device__ __forceinline__ SequenceStep step_of(const AttentionArguments& a, int sequence) {
  const int begin = __ldcg(a.query_offsets + sequence), end = __ldcg(a.query_offsets + sequence + 1);
  const int position = __ldcg(a.first_position + sequence);
  return {begin, end - begin, end > begin ? position : 0};
}

template <int kHeadDim>
__device__ __forceinline__ CachedHead cached_head(const AttentionArguments& a, int sequence, int kv_head, int length) {
  const int offset = kv_head * kHeadDim;
  return {a.k_cache + offset,
          a.v_cache + offset,
          a.block_tables + static_cast<int64_t>(sequence) * a.max_blocks,
          a.block_size,
          a.kv_heads * kHeadDim,
          length};
}

// The rows of a warpgroup and the two of a thread. Rows are counted query by query, within one head group by head.
struct GroupRows {
  int64_t element[2];  // of q and out, where the row begins
  bool valid[2];
  int limit[2];  // positions that the row sees; of a row that is none, as many as the last one's
  int lowest_limit, highest_limit;  // of the warpgroup; 0 without rows
};

template <int kHeadDim>
__device__ __forceinline__ GroupRows rows_from(const AttentionArguments& a, const SequenceStep& step, int kv_head, int first) {
  const int thread = static_cast<int>(threadIdx.x) % 128, num_rows = step.num_queries * a.group;
  GroupRows rows;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int row = first + thread / 32 * 16 + thread % 32 / 4 + 8 * i;
    rows.valid[i] = row < num_rows;
    const int query = min(row / a.group, step.num_queries - 1), head = kv_head * a.group + row % a.group;
    rows.limit[i] = step.first_position + query + 1;
    rows.element[i] = (step.first_row + query) * a.row_elements(kHeadDim) + head * kHeadDim;
  }
  const int last = min(first + kWarpgroupRows, num_rows) - 1;
  rows.lowest_limit = first < num_rows ? step.first_position + first / a.group + 1 : 0;
  rows.highest_limit = first < num_rows ? step.first_position + last / a.group + 1 : 0;
  return rows;
}

// The operand A of the products with keys; zeros for rows that are none, and beyond the head.
template <int kHeadDim>
__device__ __forceinline__ void load_queries(const AttentionArguments& a, const GroupRows& rows,
                                             uint32_t (&q)[kWidth<kHeadDim> / 16][4]) {
  const int column = static_cast<int>(threadIdx.x) % 4 * 2;
#pragma unroll
  for (int step = 0; step < kWidth<kHeadDim> / 16; ++step) {
#pragma unroll
    for (int part = 0; part < 4; ++part) {
      const __nv_bfloat16* const source = a.q + rows.element[part % 2] + 16 * step + part / 2 * 8 + column;
      q[step][part] = rows.valid[part % 2] && 16 * step < kHeadDim ? *reinterpret_cast<const uint32_t*>(source) : 0;
    }
  }
}

// Neighbouring lanes swap pairs, so that each has four neighbouring elements and a row's lanes write whole sectors of 32 bytes.
template <int kHeadDim>
__device__ __forceinline__ void store_rows(const AttentionArguments& a, const GroupRows& rows,
                                           const RowSums<kWidth<kHeadDim>>& sums) {
  const int lane = static_cast<int>(threadIdx.x) % 4, is_odd = lane % 2;
#pragma unroll
  for (int row = 0; row < 2; ++row) {
    __nv_bfloat16* const out = a.out + rows.element[row] + 2 * (lane - is_odd) + 8 * is_odd;
    const auto pair = [&](int i) {
      return attended_pair(sums.out[sum_index(row, i)], sums.out[sum_index(row, i + 1)], sums.total[row]);
    };
#pragma unroll
    for (int i = 0; i < kHeadDim / 4; i += 4) {
      const uint32_t low = pair(i), high = pair(i + 2);
      const uint32_t other = __shfl_xor_sync(~0u, is_odd ? low : high, 1);
      const uint2 four = is_odd ? uint2{other, high} : uint2{low, other};
      if (rows.valid[row]) *reinterpret_cast<uint2*>(out + 4 * i) = four;
    }
  }
}

// Zeros the rows beyond the last sequence, of the heads of one key/value head; `worker` of `num_workers` blocks takes its share.
template <int kHeadDim>
__device__ __forceinline__ void clear_unused_rows(const AttentionArguments& a, int kv_head, int worker, int num_workers) {
  const int vectors = a.group * kHeadDim / 8;
  for (int row = a.query_offsets[a.num_sequences] + worker; row < a.num_rows; row += num_workers) {
    auto* out = reinterpret_cast<uint4*>(a.out + row * a.row_elements(kHeadDim) + kv_head * a.group * kHeadDim);
    for (int i = static_cast<int>(threadIdx.x); i < vectors; i += static_cast<int>(blockDim.x)) out[i] = uint4{};
  }
}

// The splits that a block goes through.
struct SplitWalk {
  int first;
  int step;

  // The n-th tile of the walk, counted in the sequence; those of the last split may lie beyond its end.
  __device__ int tile(int n) const { return (first + n / kSplitTiles * step) * kSplitTiles + n % kSplitTiles; }
};

// Adds one tile to the sums of its split; `first_key` is its first position. The whole warpgroup calls.
template <int kHeadDim>
__device__ __forceinline__ void attend_tile(const uint32_t (&q)[kWidth<kHeadDim> / 16][4], const GroupRows& rows, float scale,
                                            int first_key, uint32_t keys, uint32_t values, RowSums<kWidth<kHeadDim>>& sums) {
  float scores[32];
  wgmma_fence();
  score_tile(q, keys, scores);
  wgmma_commit();
  wgmma_wait<0>();
  pin(scores);
  if (first_key + kTileKeys > rows.lowest_limit) mask_scores({rows.limit[0] - first_key, rows.limit[1] - first_key}, scores);
  float correction[2];
  weigh_scores(scale, scores, sums, correction);
  uint32_t weights[4][4];
  round_weights(scores, weights);
  const bool is_first = first_key % kSplitPositions == 0;
  if (!is_first) correct_sums(correction, sums);
  pin(sums.out);
  pin(weights);
  wgmma_fence();
  add_values<kWidth<kHeadDim>>(weights, values, is_first, sums.out);
  wgmma_commit();
  wgmma_wait<0>();
  pin(sums.out);
}

// Tiles of a block: those that earlier steps have filled may be read before earlier kernels have ended.
struct TileRange {
  int num_old;
  int num_tiles;
};

// Goes through the tiles of a walk, and gives `finish(split, sums)` each split's sums in ascending order. Waits for earlier
// kernels.
template <int kHeadDim, int kThreads, typename Finish>
__device__ __forceinline__ void attend_splits(const AttentionArguments& a, const CachedHead& head, const GroupRows& rows,
                                              const SplitWalk& walk, const TileRange& range, Finish&& finish) {
  const int num_tiles = range.num_tiles;
  extern __shared__ std::byte shared[];
  std::byte* const stages = aligned_stages(shared);
  const uint32_t first_stage = shared_address(stages);
  const auto copy = [&](int n, int slots) {
    const int tile = walk.tile(n);
    if (tile < num_tiles) {
      copy_tile<kHeadDim, kThreads>(head, tile, slots, first_stage + n % kNumStages * kStageBytes<kHeadDim>);
    }
    commit_copies();  // of nothing, too: keeps the count of the groups in flight
  };
  int num_begun = 0;
  for (; num_begun < kNumStages - 1 && walk.tile(num_begun) < range.num_old; ++num_begun) {
    copy(num_begun, adjacent_slots(head, walk.tile(num_begun)));
  }
  if (range.num_old > 0) {
    for (int n = num_begun; n < kSplitTiles && walk.tile(n) < num_tiles; ++n) {
      prefetch_tile<kHeadDim, kThreads>(head, walk.tile(n), adjacent_slots(head, walk.tile(n)));
    }
  }
  wait_for_earlier_kernels();
  for (; num_begun < kNumStages - 1; ++num_begun) copy(num_begun, adjacent_slots(head, walk.tile(num_begun)));
  int next_slots = adjacent_slots(head, walk.tile(kNumStages - 1));

  uint32_t q[kWidth<kHeadDim> / 16][4];
  load_queries<kHeadDim>(a, rows, q);
  const uint32_t keys = keys_descriptor(stages), values = values_descriptor<kHeadDim>(stages);
  RowSums<kWidth<kHeadDim>> sums{};
#pragma unroll 1
  for (int n = 0; walk.tile(n) < num_tiles; ++n) {
    wait_for_copies<kNumStages - 2>();
    __syncthreads();  // the tile is there, and the stage of the one before is free
    copy(n + kNumStages - 1, next_slots);
    next_slots = adjacent_slots(head, walk.tile(n + kNumStages));

    const int tile = walk.tile(n), first_key = tile * kTileKeys;
    if (first_key < rows.highest_limit) {
      const uint32_t stage = n % kNumStages * kStageStep<kHeadDim>;
      attend_tile<kHeadDim>(q, rows, a.scale, first_key, keys + stage, values + stage, sums);
    }
    const int split = tile / kSplitTiles;
    const bool is_last = n % kSplitTiles == kSplitTiles - 1 || tile + 1 == num_tiles;
    if (is_last && split * kSplitPositions < rows.highest_limit) {
      finish(split, sums);
      sums.restart();
    }
  }
}

// Which queries a block of a prefill takes.
struct QueryTile {
  int sequence;  // −1: none
  int first_row;
};

// Sequences with one query may be left to decode's kernel.
enum class SingleQueries : int { kTake, kLeave };

// The tile numbered `index` over all sequences. Every warp finds it by itself.
__device__ __forceinline__ QueryTile query_tile(const AttentionArguments& a, int index, SingleQueries singles) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (int base = 0; base < a.num_sequences; base += 32) {
    const int sequence = base + lane;
    const int queries = sequence < a.num_sequences ? a.query_offsets[sequence + 1] - a.query_offsets[sequence] : 0;
    const bool is_left = queries == 1 && singles == SingleQueries::kLeave;
    const int tiles = is_left ? 0 : (queries * a.group + kPrefillRows - 1) / kPrefillRows;
    int end = tiles;  // of the tiles of this and earlier lanes
#pragma unroll
    for (int distance = 1; distance < 32; distance *= 2) {
      const int before = __shfl_up_sync(~0u, end, distance);
      if (lane >= distance) end += before;
    }
    const uint32_t beyond = __ballot_sync(~0u, index < end);
    if (beyond != 0) {
      const int found = __ffs(static_cast<int>(beyond)) - 1;
      return {base + found, (index - __shfl_sync(~0u, end - tiles, found)) * kPrefillRows};
    }
    index -= __shfl_sync(~0u, end, 31);
  }
  return {-1, 0};
}

// blockIdx.x: key/value head, then tile of queries, late ones first because they see most keys.
template <int kHeadDim>
__global__ void __launch_bounds__(kPrefillThreads, 1) attend_prefill(AttentionArguments a, SingleQueries singles) {
  allow_next_kernel();
  wait_for_earlier_kernels();
  const int kv_head = static_cast<int>(blockIdx.x) % a.kv_heads, num_items = static_cast<int>(gridDim.x) / a.kv_heads;
  const int item = num_items - 1 - static_cast<int>(blockIdx.x) / a.kv_heads;
  clear_unused_rows<kHeadDim>(a, kv_head, item, num_items);
  const QueryTile queries = query_tile(a, item, singles);
  if (queries.sequence < 0) return;

  const SequenceStep step = step_of(a, queries.sequence);
  const int warpgroup = static_cast<int>(threadIdx.x) / 128;
  const GroupRows rows = rows_from<kHeadDim>(a, step, kv_head, queries.first_row + warpgroup * kWarpgroupRows);
  const int last_row = min(queries.first_row + kPrefillRows, step.num_queries * a.group) - 1;
  const int num_positions = step.first_position + last_row / a.group + 1;
  const CachedHead head = cached_head<kHeadDim>(a, queries.sequence, kv_head, num_positions);
  const int num_tiles = (num_positions + kTileKeys - 1) / kTileKeys;

  using Sums = RowSums<kWidth<kHeadDim>>;
  Sums all{};
  attend_splits<kHeadDim, kPrefillThreads>(a, head, rows, {0, 1}, {0, num_tiles}, [&](int, const Sums& split) {
    fold_split(split, a.scale, all);
  });
  store_rows<kHeadDim>(a, rows, all);
}

template <int kHeadDim>
__device__ __forceinline__ float* record_of(const AttentionArguments& a, int sequence, int split, int head) {
  const int64_t row = (static_cast<int64_t>(sequence) * a.max_splits + split) * a.kv_heads * a.group + head;
  return a.partial + row * kRecordFloats<kHeadDim>;
}

// `records` from the first head of the key/value head on.
template <int kHeadDim>
__device__ __forceinline__ void store_records(const AttentionArguments& a, float* records, const GroupRows& rows,
                                              const RowSums<kWidth<kHeadDim>>& sums) {
  const int thread = static_cast<int>(threadIdx.x);
#pragma unroll
  for (int row = 0; row < 2; ++row) {
    const float total = total_of_row(sums.total[row]);
    if (!rows.valid[row]) continue;
    float* const record = records + (thread / 32 * 16 + thread % 32 / 4 + 8 * row) * kRecordFloats<kHeadDim>;
#pragma unroll
    for (int i = 0; i < kHeadDim / 4; i += 2) {
      const float2 pair{sums.out[sum_index(row, i)], sums.out[sum_index(row, i + 1)]};
      *reinterpret_cast<float2*>(record + 4 * i + thread % 4 * 2) = pair;
    }
    if (thread % 4 == 0) *reinterpret_cast<float2*>(record + kHeadDim) = {sums.highest[row], total};
  }
}

// Folds the splits of one sequence's query and writes its heads; four elements a thread and round.
template <int kHeadDim>
__device__ __forceinline__ void fold_records(const AttentionArguments& a, const float* records, int num_splits,
                                             __nv_bfloat16* out) {
  const int64_t split_stride = static_cast<int64_t>(a.kv_heads) * a.group * kRecordFloats<kHeadDim>;
  for (int item = static_cast<int>(threadIdx.x); item < a.group * kHeadDim / 4; item += kDecodeThreads) {
    const int head = item / (kHeadDim / 4), column = item % (kHeadDim / 4) * 4;
    const float* record = records + head * kRecordFloats<kHeadDim>;
    float sums[4] = {}, highest = -INFINITY, total = 0.0f;
#pragma unroll 8
    for (int split = 0; split < num_splits; ++split, record += split_stride) {
      const float4 values = __ldcg(reinterpret_cast<const float4*>(record + column));
      const float2 weight = __ldcg(reinterpret_cast<const float2*>(record + kHeadDim));
      const FoldFactors factors = fold_factors(highest, weight.x, a.scale);
      total = factors.fold(total, weight.y);
      sums[0] = factors.fold(sums[0], values.x);
      sums[1] = factors.fold(sums[1], values.y);
      sums[2] = factors.fold(sums[2], values.z);
      sums[3] = factors.fold(sums[3], values.w);
    }
    const uint2 rounded{attended_pair(sums[0], sums[1], total), attended_pair(sums[2], sums[3], total)};
    *reinterpret_cast<uint2*>(out + head * kHeadDim + column) = rounded;
  }
}

// Whether this block is the last of those that share `arrivals`; then all they wrote is visible, and the counter is 0 again.
__device__ __forceinline__ bool is_last_to_arrive(int32_t* arrivals, int num_done, int num_expected) {
  __threadfence();
  __syncthreads();
  const bool is_last = threadIdx.x == 0 && atomicAdd(arrivals, num_done) + num_done == num_expected;
  if (__syncthreads_or(is_last) == 0) return false;
  if (threadIdx.x == 0) *arrivals = 0;
  __threadfence();
  return true;
}

// blockIdx.x: splits x, x + gridDim.x, ...; .y: key/value head; .z: sequence, of which only those with one query count.
template <int kHeadDim>
__global__ void __launch_bounds__(kDecodeThreads, 2) attend_decode(AttentionArguments a) {
  allow_next_kernel();
  const int kv_head = static_cast<int>(blockIdx.y), sequence = static_cast<int>(blockIdx.z);
  const SplitWalk walk{static_cast<int>(blockIdx.x), static_cast<int>(gridDim.x)};
  const SequenceStep step = sequence < a.num_sequences ? step_of(a, sequence) : SequenceStep{};
  const int num_splits = (step.length() + static_cast<int>(kSplitPositions) - 1) / static_cast<int>(kSplitPositions);
  if (step.num_queries != 1 || walk.first >= num_splits) {
    wait_for_earlier_kernels();
    if (walk.first == 0) clear_unused_rows<kHeadDim>(a, kv_head, sequence, static_cast<int>(gridDim.z));
    return;
  }

  const GroupRows rows = rows_from<kHeadDim>(a, step, kv_head, 0);
  const CachedHead head = cached_head<kHeadDim>(a, sequence, kv_head, step.length());
  const TileRange tiles{step.first_position / kTileKeys, (step.length() + kTileKeys - 1) / kTileKeys};
  const int first_head = kv_head * a.group;
  int num_done = 0;
  attend_splits<kHeadDim, kDecodeThreads>(a, head, rows, walk, tiles, [&](int split, const RowSums<kWidth<kHeadDim>>& sums) {
    ++num_done;
    if (num_splits > 1) {
      return store_records<kHeadDim>(a, record_of<kHeadDim>(a, sequence, split, first_head), rows, sums);
    }
    RowSums<kWidth<kHeadDim>> all{};
    fold_split(sums, a.scale, all);
    store_rows<kHeadDim>(a, rows, all);
  });
  if (walk.first == 0) clear_unused_rows<kHeadDim>(a, kv_head, sequence, static_cast<int>(gridDim.z));
  if (num_splits == 1) return;
  if (!is_last_to_arrive(a.arrivals + sequence * a.kv_heads + kv_head, num_done, num_splits)) return;
  __nv_bfloat16* const out = a.out + step.first_row * a.row_elements(kHeadDim) + first_head * kHeadDim;
  fold_records<kHeadDim>(a, record_of<kHeadDim>(a, sequence, 0, first_head), num_splits, out);
}

int64_t splits_of(int64_t num_positions) { return (num_positions + kSplitPositions - 1) / kSplitPositions; }

AttentionArguments check_arguments(const PagedAttentionInput& input, AttentionScratch& scratch, Tensor& out) {
  constexpr std::string_view kName = "paged_attention";
  constexpr float kLog2E = 1.44269504f;
  check_rank(kName, input.q, 3);
  check_rank(kName, input.k_cache, 3);
  check_rank(kName, input.block_tables, 2);
  const int64_t heads = input.q.dim(1), head_dim = input.q.dim(2), kv_heads = input.k_cache.dim(1);
  const int64_t num_sequences = input.query_offsets.dim(0) - 1;
  CHECK(kv_heads > 0 && heads % kv_heads == 0 && heads / kv_heads <= kWarpgroupRows)
      << "paged_attention: " << heads << " heads over " << kv_heads;
  CHECK(input.block_size > 0 && input.block_size % kAdjacentPositions == 0) << "paged_attention: blocks of " << input.block_size;
  CHECK_GT(input.scale, 0.0f);
  check_operand(kName, input.q, DType::kBF16, input.q.shape());
  check_operand(kName, out, DType::kBF16, input.q.shape());
  check_operand(kName, input.k_cache, DType::kBF16, {input.k_cache.dim(0), kv_heads, head_dim});
  check_operand(kName, input.v_cache, DType::kBF16, input.k_cache.shape());
  check_operand(kName, input.query_offsets, DType::kI32, {num_sequences + 1});
  check_operand(kName, input.first_position, DType::kI32, {num_sequences});
  check_operand(kName, input.block_tables, DType::kI32, {num_sequences, input.block_tables.dim(1)});
  return {.q = reinterpret_cast<const __nv_bfloat16*>(input.q.bytes()),
          .k_cache = reinterpret_cast<const __nv_bfloat16*>(input.k_cache.bytes()),
          .v_cache = reinterpret_cast<const __nv_bfloat16*>(input.v_cache.bytes()),
          .query_offsets = input.query_offsets.data<int32_t>(),
          .first_position = input.first_position.data<int32_t>(),
          .block_tables = input.block_tables.data<int32_t>(),
          .out = reinterpret_cast<__nv_bfloat16*>(out.bytes()),
          .partial = scratch.partial.data<float>(),
          .arrivals = scratch.arrivals.data<int32_t>(),
          .num_rows = static_cast<int>(input.q.dim(0)),
          .num_sequences = static_cast<int>(num_sequences),
          .kv_heads = static_cast<int>(kv_heads),
          .group = static_cast<int>(heads / kv_heads),
          .max_blocks = static_cast<int>(input.block_tables.dim(1)),
          .block_size = static_cast<int>(input.block_size),
          .max_splits = static_cast<int>(splits_of(input.max_positions)),
          .scale = input.scale * kLog2E};
}

bool fits(const AttentionArguments& a, int64_t head_dim, const AttentionScratch& scratch) {
  const int64_t records = int64_t{a.num_sequences} * a.max_splits * a.kv_heads * a.group;
  return records * (head_dim + kRecordExtra) <= scratch.partial.num_elements() &&
         int64_t{a.num_sequences} * a.kv_heads <= scratch.arrivals.num_elements();
}

// Once, before the first launch: it must not happen while a graph is captured for the first time, and costs time.
template <int kHeadDim>
void raise_shared_memory() {
  static const cudaError_t prefill =
      cudaFuncSetAttribute(attend_prefill<kHeadDim>, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes<kHeadDim>);
  static const cudaError_t decode =
      cudaFuncSetAttribute(attend_decode<kHeadDim>, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes<kHeadDim>);
  CUDA_CHECK(prefill);
  CUDA_CHECK(decode);
}

template <int kHeadDim>
void launch_prefill(const AttentionArguments& a, SingleQueries singles, Stream& stream) {
  const int64_t items = std::max<int64_t>(1, int64_t{a.num_rows} * a.group / kPrefillRows + a.num_sequences);
  launch(attend_prefill<kHeadDim>,
         {dim3(static_cast<unsigned>(items * a.kv_heads)), dim3(kPrefillThreads), kSharedBytes<kHeadDim>}, stream, a, singles);
}

template <int kHeadDim>
void launch_decode(const AttentionArguments& a, Stream& stream) {
  const int64_t sequences = std::max(1, a.num_sequences), wanted = kDecodeBlocks / (sequences * a.kv_heads);
  const int64_t blocks = std::clamp<int64_t>(wanted, 1, std::max(1, a.max_splits));
  const dim3 grid(static_cast<unsigned>(blocks), static_cast<unsigned>(a.kv_heads), static_cast<unsigned>(sequences));
  launch(attend_decode<kHeadDim>, {grid, dim3(kDecodeThreads), kSharedBytes<kHeadDim>}, stream, a);
}

template <int kHeadDim>
void launch_attention(AttentionArguments a, int64_t max_queries, const AttentionScratch& scratch, Stream& stream) {
  raise_shared_memory<kHeadDim>();
  const bool has_room = fits(a, kHeadDim, scratch);
  if (max_queries <= 1) {
    CHECK(has_room) << "paged_attention: scratch memory for fewer than " << a.num_sequences << " sequences of " << a.max_splits
                    << " splits";
    return launch_decode<kHeadDim>(a, stream);
  }
  // Among prompts, sequences with one query are spread over more blocks apart.
  const bool apart = has_room && a.num_sequences > 1;
  launch_prefill<kHeadDim>(a, apart ? SingleQueries::kLeave : SingleQueries::kTake, stream);
  if (apart) launch_decode<kHeadDim>(a, stream);
}

}  // namespace

AttentionScratch::AttentionScratch(int64_t max_sequences, int64_t max_positions, int64_t num_heads, int64_t head_dim,
                                   Device device)
    : partial(Tensor::empty({max_sequences * splits_of(max_positions), num_heads, head_dim + kRecordExtra},
                            DType::kF32, device)),
      arrivals(Tensor::zeros({max_sequences * num_heads}, DType::kI32, device)) {}

void paged_attention(const PagedAttentionInput& input, AttentionScratch& scratch, Tensor& out, Stream& stream) {
  const AttentionArguments arguments = check_arguments(input, scratch, out);
  if (arguments.num_rows == 0) return;
  switch (input.q.dim(2)) {
    case 16:
      return launch_attention<16>(arguments, input.max_queries, scratch, stream);
    case 32:
      return launch_attention<32>(arguments, input.max_queries, scratch, stream);
    case 64:
      return launch_attention<64>(arguments, input.max_queries, scratch, stream);
    case 128:
      return launch_attention<128>(arguments, input.max_queries, scratch, stream);
    default:
      LOG(FATAL) << "paged_attention: heads of " << input.q.dim(2);
  }
}

}  // namespace skipper::cuda
