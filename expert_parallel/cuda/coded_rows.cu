#include <cuda_bf16.h>

#include <algorithm>
#include <cfloat>

#include "expert_parallel/cuda/coded_rows.h"
#include "kernels/cuda/launch.cuh"

// One warp per block of 128 channels, four channels per lane: each lane reads 16 bytes of floats and writes 4 codes. Products and
// sums are spelt out, for the compiler would fuse them and round once where the CPU rounds twice.

namespace skipper::cuda {

namespace {

constexpr int kWarps = 4;
constexpr int kLaneChannels = 4;
static_assert(kRowCodeBlock == 32 * kLaneChannels);

// Below it the reciprocal of an e4m3 scale overflows.
constexpr float kSmallestCodedMaximum = 0x1p-116f;

template <RowCode kCode>
struct CodeArithmetic;

template <>
struct CodeArithmetic<RowCode::kInt8> {
  static constexpr float kLargest = 127.0f;
  static constexpr float kLargestScale = 0x810203p98f;  // FLT_MAX / 127 rounded down, or FLT_MAX would decode to infinity

  // The float 1.5 · 2^23 + code has the code in its lowest byte, rounded to nearest even.
  static __device__ uint32_t encode(float value) { return __float_as_uint(__fadd_rn(value, 12582912.0f)) & 0xffu; }
  static __device__ float decode(uint32_t byte) { return static_cast<float>(static_cast<int8_t>(byte)); }
};

// Exponent bias 7 against 127 of a float, 3 bits of mantissa against 23. Below 2^-6 codes count steps of 2^-9.
template <>
struct CodeArithmetic<RowCode::kE4m3> {
  static constexpr float kLargest = 448.0f;
  static constexpr float kLargestScale = FLT_MAX / 448.0f;  // exact
  static constexpr uint32_t kSmallestNormal = (127 - 6) << 23;
  static constexpr uint32_t kBiasDifference = (127 - 7) << 3;

  static __device__ uint32_t encode(float value) {
    const uint32_t magnitude = __float_as_uint(value) & 0x7fffffffu;
    const uint32_t normal = ((magnitude + 0x7ffffu + ((magnitude >> 20) & 1u)) >> 20) - kBiasDifference;
    // The float 2^14 + value has the value's steps of 2^-9 in its lowest bits, rounded to nearest even.
    const uint32_t subnormal = __float_as_uint(__fadd_rn(__uint_as_float(magnitude), 16384.0f)) & 0xfu;
    return ((magnitude < kSmallestNormal ? subnormal : normal) & 0x7fu) | ((__float_as_uint(value) >> 24) & 0x80u);
  }
  static __device__ float decode(uint32_t byte) {
    const uint32_t code = byte & 0x7fu;
    const uint32_t subnormal = __float_as_uint(__fmul_rn(static_cast<float>(code), 0x1p-9f));
    const uint32_t number = code < 8u ? subnormal : (code + kBiasDifference) << 20;
    return __uint_as_float((code == 0x7fu ? 0x7fc00000u : number) | ((byte & 0x80u) << 24));
  }
};

struct CodedBlock {
  uint32_t codes = 0;  // of the lane's four channels
  float scale = 0.0f;  // of the warp's block
};

// Called by a whole warp; lanes beyond the row's end bring zeros.
template <RowCode kCode>
__device__ CodedBlock encode_block(const float4& x) {
  using Arithmetic = CodeArithmetic<kCode>;
  const auto magnitude = [](float value) { return __float_as_uint(value) & 0x7fffffffu; };
  const uint32_t of_lane = max(max(magnitude(x.x), magnitude(x.y)), max(magnitude(x.z), magnitude(x.w)));
  const float maximum = __uint_as_float(__reduce_max_sync(0xffffffffu, of_lane));
  if (!(maximum <= FLT_MAX)) return {0, __uint_as_float(0x7fc00000u)};
  if (maximum < kSmallestCodedMaximum) return {};
  const float reciprocal = __fdiv_rn(Arithmetic::kLargest, maximum);
  const auto code = [&](float value) { return Arithmetic::encode(__fmul_rn(value, reciprocal)); };
  return {code(x.x) | code(x.y) << 8 | code(x.z) << 16 | code(x.w) << 24,
          fminf(__fdiv_rn(maximum, Arithmetic::kLargest), Arithmetic::kLargestScale)};
}

template <RowCode kCode>
__device__ uint2 decode_to_bf16(const CodedBlock& block) {
  const auto value = [&](int i) {
    return __fmul_rn(CodeArithmetic<kCode>::decode(block.codes >> (8 * i) & 0xffu), block.scale);
  };
  const __nv_bfloat162 low = __floats2bfloat162_rn(value(0), value(1)), high = __floats2bfloat162_rn(value(2), value(3));
  return {reinterpret_cast<const uint32_t&>(low), reinterpret_cast<const uint32_t&>(high)};
}

// The place of a warp in its row, which blockIdx.x says.
struct RowPlace {
  int64_t block = 0;    // of 128 channels
  int64_t channel = 0;  // the lane's first one
};
__device__ RowPlace row_place() {
  const int64_t block = static_cast<int64_t>(blockIdx.y) * kWarps + threadIdx.x / 32;
  return {block, block * kRowCodeBlock + threadIdx.x % 32 * kLaneChannels};
}

__device__ float4 load_channels(const float* row, int64_t channel, int64_t row_size) {
  return channel < row_size ? *reinterpret_cast<const float4*>(row + channel) : float4{};
}

// Rows sit in slots `capacity` apart, of which the first num_rows[slot / capacity] are used.
struct Slots {
  const int32_t* num_rows;
  int64_t capacity;

  __device__ bool is_used(int64_t slot) const { return slot % capacity < num_rows[slot / capacity]; }
};

struct RowSizes {
  int64_t channels;
  int64_t coded_bytes;
};

template <RowCode kCode>
__global__ void pack_coded_rows_kernel(const float* x, const int32_t* token_of_row, Slots slots, RowSizes sizes, uint8_t* send) {
  wait_for_earlier_kernels();
  allow_next_kernel();
  const int64_t slot = blockIdx.x;
  const RowPlace place = row_place();
  if (!slots.is_used(slot) || place.block * kRowCodeBlock >= sizes.channels) return;  // whole warps
  const float* row = x + token_of_row[slot] * sizes.channels;
  const CodedBlock block = encode_block<kCode>(load_channels(row, place.channel, sizes.channels));
  uint8_t* target = send + slot * sizes.coded_bytes;
  if (place.channel < sizes.channels) *reinterpret_cast<uint32_t*>(target + place.channel) = block.codes;
  if (threadIdx.x % 32 == 0) reinterpret_cast<float*>(target + sizes.channels)[place.block] = block.scale;
}

template <RowCode kCode>
__global__ void decode_arrived_rows_kernel(const uint8_t* coded, Slots slots, RowSizes sizes, __nv_bfloat16* rows) {
  wait_for_earlier_kernels();
  allow_next_kernel();
  const int64_t slot = blockIdx.x;
  const RowPlace place = row_place();
  if (!slots.is_used(slot) || place.channel >= sizes.channels) return;
  const uint8_t* source = coded + slot * sizes.coded_bytes;
  const CodedBlock block{*reinterpret_cast<const uint32_t*>(source + place.channel),
                         reinterpret_cast<const float*>(source + sizes.channels)[place.block]};
  *reinterpret_cast<uint2*>(rows + slot * sizes.channels + place.channel) = decode_to_bf16<kCode>(block);
}

template <RowCode kCode>
__global__ void round_through_codes_kernel(const float* x, int64_t row_size, __nv_bfloat16* rows) {
  wait_for_earlier_kernels();
  allow_next_kernel();
  const int64_t row = blockIdx.x;
  const RowPlace place = row_place();
  if (place.block * kRowCodeBlock >= row_size) return;  // whole warps
  const CodedBlock block = encode_block<kCode>(load_channels(x + row * row_size, place.channel, row_size));
  if (place.channel < row_size) *reinterpret_cast<uint2*>(rows + row * row_size + place.channel) = decode_to_bf16<kCode>(block);
}

__global__ void hand_on_rows_kernel(const uint32_t* rows, const int32_t* row_of_slot, Slots slots, int64_t num_words,
                                    uint32_t* send) {
  wait_for_earlier_kernels();
  allow_next_kernel();
  const int64_t slot = blockIdx.x;
  if (!slots.is_used(slot)) return;
  const uint32_t* row = rows + row_of_slot[slot] * num_words;
  uint32_t* target = send + slot * num_words;
  for (int64_t word = threadIdx.x; word < num_words; word += blockDim.x) target[word] = row[word];
}

LaunchShape shape_of(int64_t num_rows, int64_t row_size) {
  constexpr int64_t kBlockChannels = kWarps * kRowCodeBlock;
  CHECK_EQ(row_size % kLaneChannels, 0);
  return {dim3(static_cast<unsigned>(num_rows), static_cast<unsigned>((row_size + kBlockChannels - 1) / kBlockChannels)),
          dim3(kWarps * 32)};
}

Slots slots_of(const Tensor& num_rows, const Tensor& rows) {
  return {num_rows.data<int32_t>(), std::max<int64_t>(rows.dim(0) / num_rows.num_elements(), 1)};
}

__nv_bfloat16* bf16_of(Tensor& tensor) { return reinterpret_cast<__nv_bfloat16*>(tensor.data<bf16>()); }

}  // namespace

void pack_coded_rows(const Tensor& x, const OutgoingOutput& plan, RowCode code, Tensor& send, Stream& stream) {
  CHECK_EQ(send.dim(1), coded_row_bytes(x.dim(1)));
  const auto kernel = code == RowCode::kInt8 ? pack_coded_rows_kernel<RowCode::kInt8> : pack_coded_rows_kernel<RowCode::kE4m3>;
  launch(kernel, shape_of(send.dim(0), x.dim(1)), stream, x.data<float>(), plan.token_of_row.data<int32_t>(),
         slots_of(plan.num_rows, send), RowSizes{x.dim(1), send.dim(1)}, send.data<uint8_t>());
}

void hand_on_rows(const Tensor& rows, const OutgoingOutput& plan, Tensor& send, Stream& stream) {
  CHECK(rows.dtype() == send.dtype() && rows.dim(1) == send.dim(1));
  const int64_t row_bytes = send.dim(1) * static_cast<int64_t>(size_of(send.dtype()));
  CHECK_EQ(row_bytes % 4, 0);
  if (rows.dim(0) == 0) return;
  launch(hand_on_rows_kernel, {dim3(static_cast<unsigned>(send.dim(0))), dim3(kWarps * 32)}, stream,
         reinterpret_cast<const uint32_t*>(rows.bytes()), plan.token_of_row.data<int32_t>(), slots_of(plan.num_rows, send),
         row_bytes / 4, reinterpret_cast<uint32_t*>(send.bytes()));
}

void decode_arrived_rows(const CodedRows& arrived, Tensor& rows, Stream& stream) {
  CHECK_EQ(arrived.coded.dim(0), rows.dim(0));
  CHECK_EQ(arrived.coded.dim(1), coded_row_bytes(rows.dim(1)));
  const auto kernel = arrived.code == RowCode::kInt8 ? decode_arrived_rows_kernel<RowCode::kInt8>
                                                     : decode_arrived_rows_kernel<RowCode::kE4m3>;
  launch(kernel, shape_of(rows.dim(0), rows.dim(1)), stream, arrived.coded.data<uint8_t>(), slots_of(arrived.num_rows, rows),
         RowSizes{rows.dim(1), arrived.coded.dim(1)}, bf16_of(rows));
}

void round_through_codes(const Tensor& x, RowCode code, Tensor& rows, Stream& stream) {
  CHECK(x.shape() == rows.shape());
  const auto kernel =
      code == RowCode::kInt8 ? round_through_codes_kernel<RowCode::kInt8> : round_through_codes_kernel<RowCode::kE4m3>;
  launch(kernel, shape_of(x.dim(0), x.dim(1)), stream, x.data<float>(), x.dim(1), bf16_of(rows));
}

}  // namespace skipper::cuda
