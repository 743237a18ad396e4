// Tensors of a checkpoint in the forms that the kernels take: small ones copied at once, matrices packed by a LoadQueue.
#pragma once

#include <cstddef>
#include <optional>
#include <string>

#include "kernels/layer_norm.h"
#include "kernels/linear.h"
#include "model/load_queue.h"
#include "model/weight_config.h"
#include "tensor/safetensors.h"

namespace skipper {

enum class Bias : uint8_t { kNone, kPresent };

// A view of the mapping of a bf16, f32 or f16 tensor. Throws InvalidFile naming the tensor: missing, another shape, another type.
Tensor float_view(const Checkpoint& checkpoint, const std::string& name, const Shape& shape);

// How a matrix is to rest.
struct PackingFormat {
  std::optional<WeightFormat> format;                                // absent: as stored, F16 as F32
  ActivationFormat bf16_activations = ActivationFormat::kBF16;  // what meets it where it is BF16: kBF16 or kF32
  WeightResidence residence = WeightResidence::kMemory;         // of matrices that the checkpoint holds packed
};

// A name is wrong at once: every method throws InvalidFile naming a tensor that is missing, of another shape or another type
// than bf16, f32 and f16. Weights that cannot be rounded are found when the queue runs. Checkpoint and queue outlive the reader,
// the checkpoint outlives the queue's run.
class CheckpointReader {
 public:
  CheckpointReader(const Checkpoint& checkpoint, LoadQueue& queue) : checkpoint_(checkpoint), queue_(queue) {}

  // A view of the mapping: see float_view().
  Tensor view(const std::string& name, const Shape& shape) const { return float_view(checkpoint_, name, shape); }
  // A copy, bf16 or f32; of small tensors.
  Tensor copy(const std::string& name, const Shape& shape) const;
  LayerNormWeights layer_norm(const std::string& name, int64_t size) const;  // `name`.weight and `name`.bias

  // `name`.weight [out, in] packed by the queue, `name`.bias [out] copied.
  PackedLinear linear(const std::string& name, const Shape& shape, Bias bias, const PackingFormat& packing);
  // `view` [N, K] packed by the queue; `name` is what an error calls it.
  PackedMatrix pack_later(const std::string& name, const Tensor& view, const PackingFormat& packing);

  // A matrix that the checkpoint holds in packing.format (model/quantized_checkpoint.h): copied by the queue, or used in place
  // and its pages read in by the queue, for the bytes of the file are those of the memory.
  PackedMatrix packed(const std::string& name, const PackedShape& shape, const PackingFormat& packing);
  // Memory for a matrix that is stored as `stored` and shall rest as `packing` says.
  PackedMatrix make_packed(DType stored, const PackedShape& shape, const PackingFormat& packing);

  const Checkpoint& checkpoint() const { return checkpoint_; }
  LoadQueue& queue() { return queue_; }
  // Of all matrices made so far, and of those used in place.
  size_t packed_bytes() const { return packed_bytes_; }
  size_t mapped_bytes() const { return mapped_bytes_; }

 private:
  const Checkpoint& checkpoint_;
  LoadQueue& queue_;
  size_t packed_bytes_ = 0;
  size_t mapped_bytes_ = 0;
};

// For a matrix of read_packed(): makes `queue` copy it, or read in its pages for use in place.
void copy_later(const PackedMatrix& source, const PackedMatrix& destination, LoadQueue& queue);
void read_in_later(const Checkpoint& checkpoint, const PackedMatrix& matrix, LoadQueue& queue);

// `weights`, bf16, f32 or f16, as pack_into() takes them. Throws InvalidFile naming `name` for a NaN or an infinite weight
// where `format` has no code for it.
Tensor packable(const std::string& name, const Tensor& weights, const WeightFormat& format);

// The tensor itself when it is f32, else a copy.
Tensor as_f32(const Tensor& tensor);

}  // namespace skipper
