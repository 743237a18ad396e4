// A row is shared by a cluster of blocks, each with the logits of a range of ids in its shared memory: the row is read once. What
// blocks find out goes straight to each other's shared memory.
//
// The k-th or the last nucleus token is found digit by digit of its distance: a histogram of counts and weights over the tokens
// that share the digits so far, ten bits at a time. Distances are logarithms of probabilities, so tokens spread over the bins.
// All sums are of integers: atomic additions in any order give the same.
#include "kernels/cuda/token_sampling.h"

#include <cooperative_groups.h>
#include <glog/logging.h>

#include "kernels/cuda/gpu_operands.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/token_weight.h"

namespace skipper::cuda {
namespace {

using namespace token_sampling;
namespace groups = cooperative_groups;
using Mass = unsigned long long;

constexpr int kBlocks = 8;  // of a cluster
constexpr int kThreads = 512;
constexpr int kWarps = kThreads / 32;
constexpr int kDigitBits = 10, kBins = 1 << kDigitBits, kSliceBins = kBins / kBlocks;
constexpr int kFirstShift = 20;
constexpr unsigned kAllLanes = 0xffffffffu;
static_assert(kMostDistance >> kFirstShift < kBins && kFirstShift % kDigitBits == 0);
static_assert(kSliceBins <= kThreads);

// --- Numbers -----------------------------------------------------------------------------------------------------------------

// Orders logits as unsigned numbers, NaN like −∞; both zeros are equal.
__device__ __forceinline__ uint32_t ordered(float logit) {
  constexpr uint32_t kSign = 0x80000000u, kNegativeInfinity = 0xff800000u;
  const uint32_t bits = isnan(logit) ? kNegativeInfinity : logit == 0.0f ? 0u : __float_as_uint(logit);
  return bits & kSign ? ~bits : bits | kSign;
}
constexpr uint32_t kOrderedNever = ~0xff800000u;

// Some tokens, and the sum of their weights.
struct Tally {
  Mass mass = 0;
  uint32_t count = 0;
};
__device__ __forceinline__ Tally operator+(const Tally& a, const Tally& b) { return {a.mass + b.mass, a.count + b.count}; }

// The greater for the greater logit, and for the lower id of equals.
__device__ __forceinline__ Mass rank_key(uint32_t value, uint32_t id) { return (Mass{value} << 32) | ~id; }
__device__ __forceinline__ uint32_t value_of(Mass key) { return static_cast<uint32_t>(key >> 32); }
__device__ __forceinline__ uint32_t id_of(Mass key) { return ~static_cast<uint32_t>(key); }

// --- What the blocks of a row share ------------------------------------------------------------------------------------------

struct Bin {
  uint32_t digit;
  Tally before;  // in all lower bins
  Tally within;
};

struct Shared {
  uint32_t counts[kBins];                   // a histogram of this block's tokens; masses in two halves, since
  uint32_t low_masses[kBins];               // shared memory adds words of 32 bits alone
  uint32_t high_masses[kBins];
  Tally of_warps[kWarps];
  Mass best_of_warps[kWarps];
  Mass best_of_blocks[2][kBlocks];          // written by all blocks; by round
  Tally of_blocks[2][kBlocks];              // written by all blocks; in turns
  Bin found;                                // written by the block whose slice holds it
};

// One row: its ids from `first` on are this block's, `chunk` neighbours for each thread.
struct Row {
  groups::cluster_group cluster;
  Shared& shared;
  uint32_t* distances;  // [kThreads · chunk]: of this block's ids; logits until the largest is known
  uint32_t first;
  uint32_t chunk;
  uint32_t turn = 0;

  __device__ __forceinline__ uint32_t rank() const { return cluster.block_rank(); }
  __device__ __forceinline__ uint32_t* own() const { return distances + threadIdx.x * chunk; }
  __device__ __forceinline__ uint32_t own_first() const { return first + threadIdx.x * chunk; }
  template <typename T>
  __device__ __forceinline__ T& of_block(T& member, unsigned block) const { return *cluster.map_shared_rank(&member, block); }
};

// What lies before a thread of the cluster, in the order of blocks and threads, and in all.
struct Scan {
  Tally before;
  Tally total;
};

__device__ __forceinline__ Tally shifted_up(const Tally& value, unsigned distance) {
  return {__shfl_up_sync(kAllLanes, value.mass, distance), __shfl_up_sync(kAllLanes, value.count, distance)};
}

// Over the block. Ends with all threads past their reads.
__device__ __forceinline__ Scan scan_block(Shared& shared, const Tally& own) {
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  Tally upto = own;
#pragma unroll
  for (unsigned distance = 1; distance < 32; distance *= 2) {
    const Tally lower = shifted_up(upto, distance);
    if (lane >= distance) upto = upto + lower;
  }
  if (lane == 31) shared.of_warps[warp] = upto;
  __syncthreads();
  Scan scan{{upto.mass - own.mass, upto.count - own.count}, {}};
  for (unsigned w = 0; w < kWarps; ++w) {
    const Tally of_warp = shared.of_warps[w];
    if (w < warp) scan.before = scan.before + of_warp;
    scan.total = scan.total + of_warp;
  }
  __syncthreads();
  return scan;
}

// Over all blocks. Two buffers in turns: who writes for the next scan but one has met all who read for this one.
__device__ __forceinline__ Scan scan_cluster(Row& row, const Tally& own) {
  Scan scan = scan_block(row.shared, own);
  Tally(&of_blocks)[kBlocks] = row.shared.of_blocks[row.turn++ % 2];
  if (threadIdx.x < kBlocks) row.of_block(of_blocks[row.rank()], threadIdx.x) = scan.total;
  row.cluster.sync();
  scan.total = {};
  for (unsigned block = 0; block < kBlocks; ++block) {
    if (block < row.rank()) scan.before = scan.before + of_blocks[block];
    scan.total = scan.total + of_blocks[block];
  }
  return scan;
}

// --- The largest logit -------------------------------------------------------------------------------------------------------

struct Forbidden {
  const int32_t* ids;
  int count;

  __device__ __forceinline__ bool holds(uint32_t id) const {
    for (int i = 0; i < count; ++i) {
      if (static_cast<uint32_t>(ids[i]) == id) return true;
    }
    return false;
  }
};

__device__ __forceinline__ Mass warp_max(Mass key) {
  for (int distance = 16; distance > 0; distance /= 2) key = max(key, __shfl_xor_sync(kAllLanes, key, distance));
  return key;
}

// Over the cluster; every thread gets it. Each round is called once.
__device__ __forceinline__ Mass cluster_max(Row& row, Mass key, int round) {
  const Mass of_warp = warp_max(key);
  if (threadIdx.x % 32 == 0) row.shared.best_of_warps[threadIdx.x / 32] = of_warp;
  __syncthreads();
  if (threadIdx.x < 32) {
    const Mass of_block = warp_max(threadIdx.x < kWarps ? row.shared.best_of_warps[threadIdx.x] : 0);
    if (threadIdx.x < kBlocks) row.of_block(row.shared.best_of_blocks[round][row.rank()], threadIdx.x) = of_block;
  }
  row.cluster.sync();
  Mass best = 0;
  for (int block = 0; block < kBlocks; ++block) best = max(best, row.shared.best_of_blocks[round][block]);
  return best;
}

// Takes this block's range of the row to shared memory, where `keep` asks for it, and finds its largest logit. Places beyond the
// vocabulary are left alone.
__device__ __forceinline__ Mass load_and_find_largest(const Row& row, const float* logits, uint32_t vocab_size, bool keep) {
  Mass best = 0;
  uint32_t best_value = 0;
  const auto offer = [&](float logit, uint32_t id) {
    const uint32_t value = ordered(logit);
    if (value <= best_value) return;  // ids ascend, so the first of equals stays
    best_value = value;
    best = rank_key(value, id);
  };
  const uint32_t end = min(row.first + kThreads * row.chunk, max(vocab_size, row.first));
  if (vocab_size % 4 == 0) {
#pragma unroll 4
    for (uint32_t id = row.first + 4 * threadIdx.x; id < end; id += 4 * kThreads) {
      const float4 four = *reinterpret_cast<const float4*>(logits + id);
      offer(four.x, id);
      offer(four.y, id + 1);
      offer(four.z, id + 2);
      offer(four.w, id + 3);
      if (keep) *reinterpret_cast<float4*>(row.distances + (id - row.first)) = four;
    }
  } else {
    for (uint32_t id = row.first + threadIdx.x; id < end; id += kThreads) {
      offer(logits[id], id);
      if (keep) row.distances[id - row.first] = __float_as_uint(logits[id]);
    }
  }
  return best;
}

__device__ __forceinline__ Mass find_largest_allowed(const Row& row, const float* logits, uint32_t vocab_size,
                                                     const Forbidden& forbidden) {
  Mass best = 0;
  const uint32_t end = min(row.own_first() + row.chunk, vocab_size);
  for (uint32_t id = row.own_first(); id < end; ++id) {
    if (!forbidden.holds(id)) best = max(best, rank_key(ordered(logits[id]), id));
  }
  return best;
}

// In place of this thread's logits; tokens that cannot be drawn are kImpossible.
__device__ __forceinline__ void turn_into_distances(const Row& row, uint32_t vocab_size, float largest, float units_per_logit,
                                                    const Forbidden& forbidden) {
  uint32_t* const own = row.own();
  for (uint32_t i = 0; i < row.chunk; ++i) {
    const uint32_t id = row.own_first() + i;
    const bool is_possible = id < vocab_size && !forbidden.holds(id);
    own[i] = is_possible ? distance_of(__uint_as_float(own[i]), largest, units_per_logit) : kImpossible;
  }
}

// --- Top-k and top-p ---------------------------------------------------------------------------------------------------------

// Tokens closer than `distance`, and the first `num_equal` by id of those at it.
struct Kept {
  uint32_t distance = kImpossible;
  uint32_t num_equal = 0;
};

__device__ __forceinline__ void add_to_bin(Shared& shared, uint32_t bin, const Tally& tally) {
  const auto low = static_cast<uint32_t>(tally.mass);
  auto high = static_cast<uint32_t>(tally.mass >> 32);
  atomicAdd(&shared.counts[bin], tally.count);
  if (atomicAdd(&shared.low_masses[bin], low) > ~low) ++high;  // the carry
  if (high != 0) atomicAdd(&shared.high_masses[bin], high);
}

// Of the kept tokens whose distance begins with `prefix`.
__device__ __forceinline__ void fill_histogram(Row& row, const Kept& kept, uint32_t prefix, int shift) {
  Shared& shared = row.shared;
  for (int bin = threadIdx.x; bin < kBins; bin += kThreads) {
    shared.counts[bin] = shared.low_masses[bin] = shared.high_masses[bin] = 0;
  }
  __syncthreads();
  const auto add = [&](uint32_t distance, uint32_t count) {
    if (distance >> (shift + kDigitBits) != prefix) return;
    add_to_bin(shared, distance >> shift & (kBins - 1), {weight_of(distance) * count, count});
  };
  const uint32_t* const own = row.own();
  for (uint32_t i = 0; i < row.chunk; ++i) {
    if (own[i] < kept.distance) add(own[i], 1);
  }
  if (kept.num_equal > 0 && row.rank() == 0 && threadIdx.x == 0) add(kept.distance, kept.num_equal);
  row.cluster.sync();
}

// Of all blocks; each block sums a slice of the bins.
__device__ __forceinline__ Tally merged_bin(const Row& row) {
  Tally sum;
  if (threadIdx.x >= kSliceBins) return sum;
  const uint32_t bin = row.rank() * kSliceBins + threadIdx.x;
#pragma unroll
  for (unsigned block = 0; block < kBlocks; ++block) {
    const Mass high = row.of_block(row.shared.high_masses[bin], block), low = row.of_block(row.shared.low_masses[bin], block);
    sum = sum + Tally{(high << 32) + low, row.of_block(row.shared.counts[bin], block)};
  }
  return sum;
}

// How far selection goes along the order of distances: to the k-th token, or to a share of the mass.
struct CountGoal {
  uint32_t count;

  __device__ __forceinline__ void learn_total(const Tally&) {}
  __device__ __forceinline__ bool is_reached_by(const Tally& tally) const { return tally.count >= count; }
  __device__ __forceinline__ uint32_t missing_after(const Bin& last) const { return count - last.before.count; }
};
struct MassGoal {
  float share;
  Mass mass = 1;

  __device__ __forceinline__ void learn_total(const Tally& total) {
    mass = static_cast<Mass>(ceil(__dmul_rn(static_cast<double>(share), __ull2double_rn(total.mass))));
  }
  __device__ __forceinline__ bool is_reached_by(const Tally& tally) const { return tally.mass >= mass; }
  // The tokens of the last bin weigh the same.
  __device__ __forceinline__ uint32_t missing_after(const Bin& last) const {
    const Mass each = last.within.mass / last.within.count;
    return static_cast<uint32_t>((mass - last.before.mass + each - 1) / each);
  }
};

// The shortest beginning of the kept tokens that reaches the goal; all of them if none does.
template <typename Goal>
__device__ __forceinline__ Kept keep_until(Row& row, const Kept& kept, Goal goal) {
  Bin last{};
  uint32_t prefix = 0;
  for (int shift = kFirstShift; shift >= 0; shift -= kDigitBits) {
    fill_histogram(row, kept, prefix, shift);
    const Tally own = merged_bin(row);
    const Scan scan = scan_cluster(row, own);
    if (shift == kFirstShift) {
      goal.learn_total(scan.total);
      if (!goal.is_reached_by(scan.total)) return kept;
    }
    const Tally before = last.before + scan.before;
    if (!goal.is_reached_by(before) && goal.is_reached_by(before + own)) {
      const Bin bin{row.rank() * kSliceBins + threadIdx.x, before, own};
      for (unsigned block = 0; block < kBlocks; ++block) row.of_block(row.shared.found, block) = bin;
    }
    row.cluster.sync();
    last = row.shared.found;
    prefix = prefix << kDigitBits | last.digit;
  }
  return {prefix, goal.missing_after(last)};
}

// --- The draw ----------------------------------------------------------------------------------------------------------------

// The block and the thread whose ids hold the drawn place write the token.
__device__ __forceinline__ void draw(Row& row, const Kept& kept, uint64_t random, int32_t* token) {
  const uint32_t* const own = row.own();
  Tally closer;
  uint32_t num_equal = 0;
  for (uint32_t i = 0; i < row.chunk; ++i) {
    if (own[i] < kept.distance) closer.mass += weight_of(own[i]);
    if (own[i] == kept.distance) ++num_equal;
  }
  uint32_t num_equal_kept = 0;
  if (kept.num_equal > 0) {
    const uint32_t before = scan_cluster(row, {0, num_equal}).before.count;
    num_equal_kept = before >= kept.num_equal ? 0 : min(kept.num_equal - before, num_equal);
    closer.mass += weight_of(kept.distance) * num_equal_kept;
  }
  const Scan scan = scan_cluster(row, closer);
  const Mass drawn = __umul64hi(random, scan.total.mass);
  Mass sum = scan.before.mass;
  if (drawn < sum || drawn >= sum + closer.mass) return;
  for (uint32_t i = 0; i < row.chunk; ++i) {
    const bool is_equal_kept = own[i] == kept.distance && num_equal_kept > 0;
    if (is_equal_kept) --num_equal_kept;
    if (own[i] < kept.distance || is_equal_kept) sum += weight_of(own[i]);
    if (sum <= drawn) continue;
    *token = static_cast<int32_t>(row.own_first() + i);
    return;
  }
}

// --- All of it ---------------------------------------------------------------------------------------------------------------

// Every condition on `sampling` and on what blocks have exchanged holds for the whole cluster, so all meet at the same barriers.
__global__ void __cluster_dims__(kBlocks, 1, 1) __launch_bounds__(kThreads, 2)
    sample_rows(const float* all_logits, const PackedTokenSampling* samplings, uint32_t vocab_size, uint32_t chunk,
                int32_t* ids) {
  extern __shared__ uint4 dynamic_shared[];
  __shared__ Shared shared;
  __shared__ PackedTokenSampling sampling;
  const auto cluster = groups::this_cluster();
  cluster.barrier_arrive();
  allow_next_kernel();
  wait_for_earlier_kernels();

  const uint32_t row_index = blockIdx.x / kBlocks;
  const float* const logits = all_logits + int64_t{row_index} * vocab_size;
  if (threadIdx.x < sizeof(sampling) / 4) {
    reinterpret_cast<uint32_t*>(&sampling)[threadIdx.x] = reinterpret_cast<const uint32_t*>(samplings + row_index)[threadIdx.x];
  }
  __syncthreads();
  const bool is_drawn = sampling.temperature > 0.0f;
  const Forbidden forbidden{sampling.forbidden, sampling.num_forbidden};
  Row row{cluster, shared, reinterpret_cast<uint32_t*>(dynamic_shared), cluster.block_rank() * kThreads * chunk, chunk};
  const Mass best = load_and_find_largest(row, logits, vocab_size, is_drawn);
  // A block must be running before others write to its memory.
  cluster.barrier_wait();

  const Mass of_all = cluster_max(row, best, 0);
  Mass largest = of_all;
  if (forbidden.holds(id_of(of_all))) largest = cluster_max(row, find_largest_allowed(row, logits, vocab_size, forbidden), 1);
  const bool is_fallback = value_of(largest) <= kOrderedNever;
  if (is_fallback || !is_drawn) {
    if (row.rank() == 0 && threadIdx.x == 0) ids[row_index] = static_cast<int32_t>(id_of(is_fallback ? of_all : largest));
    return;
  }
  turn_into_distances(row, vocab_size, logits[id_of(largest)], __fdiv_rn(kUnitsPerNat, sampling.temperature), forbidden);
  Kept kept;
  if (sampling.top_k > 0) kept = keep_until(row, kept, CountGoal{static_cast<uint32_t>(sampling.top_k)});
  if (sampling.top_p < 1.0f) kept = keep_until(row, kept, MassGoal{sampling.top_p});
  draw(row, kept, sampling.random, ids + row_index);
}

// Odd, so that neighbouring threads are in different banks of shared memory.
uint32_t ids_per_thread(int64_t vocab_size) {
  return static_cast<uint32_t>((vocab_size + kBlocks * kThreads - 1) / (kBlocks * kThreads)) | 1u;
}

size_t shared_bytes(int64_t vocab_size) { return ids_per_thread(vocab_size) * kThreads * sizeof(uint32_t); }

void allow_largest_vocabulary() {
  static const cudaError_t raised = cudaFuncSetAttribute(sample_rows, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                         static_cast<int>(shared_bytes(kMostSampledLogits)));
  CUDA_CHECK(raised);
}

}  // namespace

void sample_tokens(const Tensor& logits, const Tensor& samplings, Tensor& ids, Stream& stream) {
  check_rank("sample_tokens", logits, 2);
  check_operand("sample_tokens", logits, DType::kF32, logits.shape());
  check_operand("sample_tokens", samplings, DType::kU8, {logits.dim(0), static_cast<int64_t>(sizeof(PackedTokenSampling))});
  check_operand("sample_tokens", ids, DType::kI32, {logits.dim(0)});
  const int64_t vocab_size = logits.dim(1);
  CHECK(vocab_size > 0 && vocab_size <= kMostSampledLogits) << "sample_tokens: " << vocab_size << " logits";
  allow_largest_vocabulary();
  launch(sample_rows,
         {dim3(static_cast<unsigned>(logits.dim(0)) * kBlocks), dim3(kThreads), shared_bytes(vocab_size)}, stream,
         logits.data<float>(), reinterpret_cast<const PackedTokenSampling*>(samplings.bytes()), static_cast<uint32_t>(vocab_size),
         ids_per_thread(vocab_size), ids.data<int32_t>());
}

}  // namespace skipper::cuda
