// Tensors of a checkpoint in element types that the kernels take.
#pragma once

#include <cstddef>
#include <string>

#include "kernels/gemm.h"
#include "kernels/layer_norm.h"
#include "tensor/safetensors.h"

namespace skipper {

enum class Bias : uint8_t { kNone, kPresent };

// Reads under one name prefix and counts what stays mapped. The checkpoint must outlive the tensors.
class CheckpointReader {
 public:
  explicit CheckpointReader(const Checkpoint& checkpoint) : checkpoint_(checkpoint) {}

  // A bf16 or f32 tensor; f16 becomes f32. Throws InvalidFile naming the tensor: missing, another shape, another type.
  Tensor tensor(const std::string& name, const Shape& shape);
  // `name`.weight [out, in] and `name`.bias [out].
  LinearWeights linear(const std::string& name, const Shape& shape, Bias bias);
  // `name`.weight and `name`.bias [size].
  LayerNormWeights layer_norm(const std::string& name, int64_t size);

  // A tensor that is copied right away: its pages are not read in and not counted.
  Tensor transient(const std::string& name, const Shape& shape) const;

  size_t mapped_bytes() const { return mapped_bytes_; }
  const Checkpoint& checkpoint() const { return checkpoint_; }

 private:
  const Checkpoint& checkpoint_;
  size_t mapped_bytes_ = 0;
};

// The tensor itself when it is bf16, else a copy rounded to it.
Tensor as_bf16(const Tensor& tensor);
// The tensor itself when it is f32, else a copy.
Tensor as_f32(const Tensor& tensor);

}  // namespace skipper
