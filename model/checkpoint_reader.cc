#include "model/checkpoint_reader.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "kernels/elementwise.h"
#include "model/quantized_checkpoint.h"

namespace skipper {
namespace {

// Large matrices are packed in pieces, so that threads share them.
constexpr int64_t kElementsPerPiece = int64_t{1} << 20;

int64_t panels_per_piece(int64_t num_columns) {
  return std::max<int64_t>(1, kElementsPerPiece / std::max<int64_t>(1, num_columns * kPanelRows));
}

// use(begin, end) for the panels of each piece.
template <typename Use>
void for_each_piece(const PackedMatrix& matrix, const Use& use) {
  const int64_t step = panels_per_piece(matrix.num_columns);
  for (int64_t begin = 0; begin < matrix.num_panels(); begin += step) use(begin, std::min(begin + step, matrix.num_panels()));
}

void copy_bytes_of(const Tensor& source, Tensor& destination) {
  if (source.defined()) std::memcpy(destination.bytes(), source.bytes(), source.num_bytes());
}

WeightFormat format_of(DType stored) {
  return {.kind = stored == DType::kBF16 ? WeightKind::kBF16 : WeightKind::kF32, .group_size = 0};
}

// No branch, so that compilers make vectors of it. `infinity` has all exponent bits and no others.
template <typename Bits>
bool all_finite(const Bits* words, int64_t count, Bits infinity) {
  Bits found = 0;
  for (int64_t i = 0; i < count; ++i) found = static_cast<Bits>(found | ((words[i] & infinity) == infinity));
  return found == 0;
}

bool all_finite(const Tensor& weights) {
  const std::byte* bytes = weights.bytes();
  if (weights.dtype() == DType::kBF16) {
    return all_finite(reinterpret_cast<const uint16_t*>(bytes), weights.num_elements(), uint16_t{0x7f80});
  }
  return all_finite(reinterpret_cast<const uint32_t*>(bytes), weights.num_elements(), uint32_t{0x7f800000});
}

}  // namespace

Tensor float_view(const Checkpoint& checkpoint, const std::string& name, const Shape& shape) {
  Tensor view = checkpoint.get(name, shape);
  const DType dtype = view.dtype();
  if (dtype != DType::kBF16 && dtype != DType::kF32 && dtype != DType::kF16) {
    throw InvalidFile(checkpoint.directory().string() + ": tensor " + name + " has element type " +
                      std::string(name_of(dtype)) + "; expected bf16, f32 or f16");
  }
  return view;
}

Tensor CheckpointReader::copy(const std::string& name, const Shape& shape) const {
  const Tensor stored = view(name, shape);
  if (stored.dtype() == DType::kF16) return as_f32(stored);
  Tensor copy = Tensor::empty(shape, stored.dtype());
  std::memcpy(copy.bytes(), stored.bytes(), stored.num_bytes());
  return copy;
}

LayerNormWeights CheckpointReader::layer_norm(const std::string& name, int64_t size) const {
  return {copy(name + ".weight", {size}), copy(name + ".bias", {size})};
}

PackedLinear CheckpointReader::linear(const std::string& name, const Shape& shape, Bias bias, const PackingFormat& packing) {
  PackedLinear weights{pack_later(name + ".weight", view(name + ".weight", shape), packing), {}};
  if (bias == Bias::kPresent) weights.bias = copy(name + ".bias", {shape[0]});
  return weights;
}

PackedMatrix CheckpointReader::pack_later(const std::string& name, const Tensor& view, const PackingFormat& packing) {
  const PackedMatrix packed = make_packed(view.dtype(), {view.dim(0), view.dim(1)}, packing);
  for_each_piece(packed, [&](int64_t begin, int64_t end) {
    const Tensor rows = view.slice(begin * kPanelRows, std::min(end * kPanelRows, view.dim(0)));
    PackedMatrix panels = packed.panels(begin, end);
    queue_.add(rows.num_bytes(), [&checkpoint = checkpoint_, name, rows, panels]() mutable {
      pack_into(packable(name, rows, panels.format), panels);
      checkpoint.release_pages(rows);
    });
  });
  return packed;
}

PackedMatrix CheckpointReader::packed(const std::string& name, const PackedShape& shape, const PackingFormat& packing) {
  PackedMatrix stored = read_packed(checkpoint_, name, *packing.format, shape);
  if (packing.residence == WeightResidence::kMemory) {
    PackedMatrix packed = make_packed(DType::kBF16, shape, packing);
    copy_later(stored, packed, queue_);
    return packed;
  }
  if (stored.format.kind == WeightKind::kBF16) stored.activations = packing.bf16_activations;
  read_in_later(checkpoint_, stored, queue_);
  packed_bytes_ += stored.num_bytes();
  mapped_bytes_ += stored.num_bytes();
  return stored;
}

PackedMatrix CheckpointReader::make_packed(DType stored, const PackedShape& shape, const PackingFormat& packing) {
  PackedMatrix packed = empty_packed(packing.format.value_or(format_of(stored)), shape);
  if (packed.format.kind == WeightKind::kBF16) packed.activations = packing.bf16_activations;
  if (packed.format.kind == WeightKind::kF32) packed.activations = ActivationFormat::kF32;
  packed_bytes_ += packed.num_bytes();
  return packed;
}

void copy_later(const PackedMatrix& source, const PackedMatrix& destination, LoadQueue& queue) {
  for_each_piece(source, [&](int64_t begin, int64_t end) {
    const PackedMatrix from = source.panels(begin, end);
    queue.add(from.num_bytes(), [from, to = destination.panels(begin, end)]() mutable {
      copy_bytes_of(from.codes, to.codes);
      copy_bytes_of(from.scales, to.scales);
      copy_bytes_of(from.zeros, to.zeros);
    });
  });
}

void read_in_later(const Checkpoint& checkpoint, const PackedMatrix& matrix, LoadQueue& queue) {
  for_each_piece(matrix, [&](int64_t begin, int64_t end) {
    const PackedMatrix piece = matrix.panels(begin, end);
    queue.add(piece.num_bytes(), [&checkpoint, piece] {
      for (const Tensor& part : {piece.codes, piece.scales, piece.zeros}) {
        // Codes that read_packed() had to copy are in memory already.
        if (part.defined() && checkpoint.holds(part)) checkpoint.read_in(part);
      }
    });
  });
}

Tensor packable(const std::string& name, const Tensor& weights, const WeightFormat& format) {
  const Tensor result = weights.dtype() == DType::kBF16 ? weights : as_f32(weights);
  if (!format.is_integer() || all_finite(result)) return result;
  throw InvalidFile("tensor " + name + " holds a NaN or an infinite weight, which " + name_of(format) +
                    " cannot hold; load the model in bf16, or repair the checkpoint");
}

Tensor as_f32(const Tensor& tensor) {
  if (tensor.dtype() == DType::kF32) return tensor;
  Tensor result = Tensor::empty(tensor.shape(), DType::kF32);
  cpu::convert(tensor, result);
  return result;
}

}  // namespace skipper
