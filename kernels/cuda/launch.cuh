// How every kernel here is launched: so that it may be set up while the kernel before it still runs.
//
// Programmatic dependent launch hides the microseconds between the short kernels of a decode step: blocks of the next kernel take
// their places as soon as all blocks of the running one have called allow_next_kernel() or ended.
// The rule: a kernel that does not call wait_for_earlier_kernels() may run before its predecessor has finished. So EVERY block of
// every kernel launched by launch() calls it before touching any memory that an earlier kernel reads or writes, even if the block
// then has nothing to do. Before it, only what no kernel of a step writes may be read: weights, tables of the model, and what the
// copy at the begin of a step uploads, past the L1 cache (__ldcg), which may have it from the step before.
// The order reaches back over any number of kernels: one that has waited ends only after all before it. It holds under capture,
// too, where it becomes an edge of the graph.
#pragma once

#include <cuda_runtime.h>

#include <utility>

#include "tensor/cuda/cuda_check.h"
#include "tensor/device_runtime.h"

namespace skipper::cuda {

struct LaunchShape {
  dim3 blocks;
  dim3 threads;
  size_t shared_bytes = 0;  // dynamic; above 48 KB the kernel's attribute must have been raised before
};

// kernel<<<shape>>>(arguments...) in stream order. Without blocks there is no launch.
template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), const LaunchShape& shape, Stream& stream, Arguments&&... arguments) {
  if (shape.blocks.x == 0 || shape.blocks.y == 0 || shape.blocks.z == 0) return;
  cudaLaunchAttribute early_start{};
  early_start.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early_start.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = shape.blocks;
  config.blockDim = shape.threads;
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = static_cast<cudaStream_t>(stream.native());
  config.attrs = &early_start;
  config.numAttrs = 1;
  CUDA_CHECK(cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...));
}

// Until all kernels queued before are complete and their writes visible. Returns at once if none is running.
__device__ __forceinline__ void wait_for_earlier_kernels() { cudaGridDependencySynchronize(); }

// Brings the line of an address to the L2 cache, whoever may write to it: allowed before the wait. It pays for what was written
// some kernels ago, since the weights of a layer have driven it out by then.
__device__ __forceinline__ void prefetch_to_l2(const void* address) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(address));
}

// Lets the next kernel take free places; call it early, by any thread of each block. It promises nothing about data.
__device__ __forceinline__ void allow_next_kernel() { cudaTriggerProgrammaticLaunchCompletion(); }

}  // namespace skipper::cuda
