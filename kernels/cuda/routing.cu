// One warp per token (kernels/cuda/route_token.cuh), four of them in a block.
#include "kernels/cuda/routing.h"

#include <glog/logging.h>

#include "kernels/cuda/gpu_operands.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/route_token.cuh"

namespace skipper::cuda {
namespace {

constexpr int kWarps = 4;

template <int kPerLane>
__global__ void __launch_bounds__(32 * kWarps) route(RouteArguments a) {
  __shared__ int counts[kNumCounts];
  __shared__ Home homes[32 * kPerLane];
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t token = int64_t{blockIdx.x} * kWarps + warp;
  allow_next_kernel();
  if (blockIdx.x == 0 && warp == kWarps - 1) prefetch_tables(a, lane);
  if (token < a.num_tokens) prefetch_token(a, token, lane);
  if (threadIdx.x < kNumCounts) counts[threadIdx.x] = 0;
  load_homes(a, homes);
  __syncthreads();
  wait_for_earlier_kernels();
  if (token < a.num_tokens) {
    const float* const logits = a.logits + token * a.num_experts;
    write_routed(a, token, route_token<kPerLane>(a, token, logits, homes), counts);
  }
  __syncthreads();
  add_counts(a, counts);
}

void launch_route(const RouteArguments& a, Stream& stream) {
  const LaunchShape shape{dim3(static_cast<unsigned>((a.num_tokens + kWarps - 1) / kWarps)), dim3(32 * kWarps)};
  if (a.num_experts <= 32) return launch(route<1>, shape, stream, a);
  if (a.num_experts <= 64) return launch(route<2>, shape, stream, a);
  if (a.num_experts <= 128) return launch(route<4>, shape, stream, a);
  if (a.num_experts <= 256) return launch(route<8>, shape, stream, a);
  if (a.num_experts <= 512) return launch(route<16>, shape, stream, a);
  launch(route<32>, shape, stream, a);
}

}  // namespace

void route_tokens(const RouteInput& input, const RouteOutput& output, Stream& stream) {
  RouteArguments arguments = route_arguments(input, output);
  check_operand("route_tokens", input.logits, DType::kF32, {arguments.num_tokens, arguments.num_experts});
  if (arguments.num_tokens == 0) return;
  arguments.logits = input.logits.data<float>();
  launch_route(arguments, stream);
}

}  // namespace skipper::cuda
