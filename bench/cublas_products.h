// Products by NVIDIA's libraries: what ours are checked against and timed beside.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "tensor/device_runtime.h"
#include "tensor/tensor.h"

namespace skipper::cuda {

// y = x · wᵀ. x [T, K] bf16 · w [N, K] bf16 · y [T, N] f32 or bf16, all on the GPU; operands of other runs have the same shapes.
class CublasLtProduct {
 public:
  // Runs every algorithm that the library proposes and keeps the fastest. Throws DeviceError.
  CublasLtProduct(const Tensor& x, const Tensor& w, Tensor& y, Stream& stream);
  ~CublasLtProduct();

  // Can be captured.
  void run(const Tensor& x, const Tensor& w, Tensor& y, Stream& stream) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// cublasGemmGroupedBatchedEx: rows [offsets[e], offsets[e + 1]) of x meet weights[e]; experts without rows are left out.
// x [R, K] bf16 · weights [E, N, K] bf16 · y [R, N] bf16. The library's host work belongs to each run.
class CublasGroupedProduct {
 public:
  CublasGroupedProduct(const std::vector<int32_t>& offsets, const Tensor& x, const Tensor& weights, Tensor& y, Stream& stream);
  CublasGroupedProduct(CublasGroupedProduct&&) noexcept;
  ~CublasGroupedProduct();

  void run(Stream& stream) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace skipper::cuda
