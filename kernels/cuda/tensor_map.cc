#include "kernels/cuda/tensor_map.h"

#include <cuda_runtime_api.h>
#include <glog/logging.h>

#include "base/error.h"
#include "tensor/cuda/cuda_check.h"

namespace skipper::cuda {
namespace {

// By name at run time, since a program linked with the driver's library would not start without a driver.
decltype(&cuTensorMapEncodeTiled) encode_function() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found{};
  CUDA_CHECK(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found));
  if (found != cudaDriverEntryPointSuccess) throw DeviceError("the driver has no tensor maps; install one for CUDA 13 or later");
  return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(function);
}

}  // namespace

CUtensorMap row_tiles_map(const Tensor& x, int box_rows) {
  static const auto encode = encode_function();
  CHECK(x.dtype() == DType::kBF16 && x.shape().rank() == 2);
  const cuuint64_t sizes[2] = {static_cast<cuuint64_t>(x.dim(1)), static_cast<cuuint64_t>(x.dim(0))};
  const cuuint64_t row_bytes[1] = {sizes[0] * 2};
  const cuuint32_t box[2] = {64, static_cast<cuuint32_t>(box_rows)};
  const cuuint32_t strides[2] = {1, 1};
  CUtensorMap map;
  void* memory = const_cast<std::byte*>(x.bytes());
  const CUresult status = encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, memory, sizes, row_bytes, box, strides,
                                 CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                                 CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (status != CUDA_SUCCESS) {
    throw DeviceError("no tensor map for rows of " + std::to_string(sizes[0]) + " bf16: error " + std::to_string(status));
  }
  return map;
}

}  // namespace skipper::cuda
