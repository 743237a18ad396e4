#include "model/checkpoint_reader.h"

#include "base/error.h"
#include "kernels/elementwise.h"

namespace skipper {
namespace {

constexpr size_t kPageBytes = 4096;

// Reads one byte per page, so that the kernel maps them all.
void read_in_pages(const Tensor& view) {
  const volatile std::byte* bytes = view.bytes();
  for (size_t offset = 0; offset < view.num_bytes(); offset += kPageBytes) (void)bytes[offset];
  if (view.num_bytes() > 0) (void)bytes[view.num_bytes() - 1];
}

Tensor converted(const Tensor& tensor, DType dtype) {
  Tensor copy = Tensor::empty(tensor.shape(), dtype);
  cpu::convert(tensor, copy);
  return copy;
}

}  // namespace

Tensor CheckpointReader::transient(const std::string& name, const Shape& shape) const {
  Tensor view = checkpoint_.get(name, shape);
  const DType dtype = view.dtype();
  if (dtype != DType::kBF16 && dtype != DType::kF32 && dtype != DType::kF16) {
    throw InvalidFile(checkpoint_.directory().string() + ": tensor " + name + " has element type " +
                      std::string(name_of(dtype)) + "; expected bf16, f32 or f16");
  }
  return view;
}

Tensor CheckpointReader::tensor(const std::string& name, const Shape& shape) {
  Tensor view = transient(name, shape);
  if (view.dtype() == DType::kF16) {
    Tensor copy = as_f32(view);
    checkpoint_.release_pages(view);
    return copy;
  }
  read_in_pages(view);
  mapped_bytes_ += view.num_bytes();
  return view;
}

LinearWeights CheckpointReader::linear(const std::string& name, const Shape& shape, Bias bias) {
  LinearWeights weights{tensor(name + ".weight", shape), {}};
  if (bias == Bias::kPresent) weights.bias = tensor(name + ".bias", {shape[0]});
  return weights;
}

LayerNormWeights CheckpointReader::layer_norm(const std::string& name, int64_t size) {
  return {tensor(name + ".weight", {size}), tensor(name + ".bias", {size})};
}

Tensor as_bf16(const Tensor& tensor) {
  if (tensor.dtype() == DType::kBF16) return tensor;
  return converted(as_f32(tensor), DType::kBF16);
}

Tensor as_f32(const Tensor& tensor) {
  if (tensor.dtype() == DType::kF32) return tensor;
  return converted(tensor, DType::kF32);
}

}  // namespace skipper
