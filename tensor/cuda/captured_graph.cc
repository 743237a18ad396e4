#include "tensor/cuda/captured_graph.h"

#include <cuda_runtime_api.h>

#include "tensor/cuda/cuda_check.h"

namespace skipper::cuda {
namespace {

// A stream that stays in capture would refuse everything from then on.
cudaGraph_t record(cudaStream_t stream, const std::function<void()>& work) {
  cudaGraph_t graph = nullptr;
  // Relaxed: other threads of the process may do what they like meanwhile.
  CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed));
  try {
    work();
  } catch (...) {
    if (cudaStreamEndCapture(stream, &graph) == cudaSuccess && graph != nullptr) cudaGraphDestroy(graph);
    throw;
  }
  CUDA_CHECK(cudaStreamEndCapture(stream, &graph));
  return graph;
}

}  // namespace

CapturedGraph::CapturedGraph(Stream& stream, const std::function<void()>& work) {
  cudaGraph_t graph = record(static_cast<cudaStream_t>(stream.native()), work);
  cudaGraphExec_t executable = nullptr;
  const cudaError_t status = cudaGraphInstantiate(&executable, graph, 0);
  cudaGraphDestroy(graph);
  CUDA_CHECK(status);
  executable_ = {executable, [](void* exec) { cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(exec)); }};
}

void CapturedGraph::launch(Stream& stream) const {
  CUDA_CHECK(cudaGraphLaunch(static_cast<cudaGraphExec_t>(executable_.get()), static_cast<cudaStream_t>(stream.native())));
}

}  // namespace skipper::cuda
