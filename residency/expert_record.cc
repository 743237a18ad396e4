#include "residency/expert_record.h"

#include <cstring>

#include "experts/gate_up_panels.h"
#include "residency/direct_file.h"

namespace skipper {
namespace {

constexpr size_t kMatrixAlignment = 64;

PackedShape gate_up_shape(const ExpertShape& shape) { return joined_shape({shape.intermediate_size, shape.hidden_size}); }

PackedShape down_shape(const ExpertShape& shape) { return {shape.hidden_size, shape.intermediate_size}; }

size_t down_offset(const WeightFormat& format, const ExpertShape& shape) {
  return (packed_bytes(format, gate_up_shape(shape)) + kMatrixAlignment - 1) / kMatrixAlignment * kMatrixAlignment;
}

void copy_matrix(const PackedMatrix& from, PackedMatrix& to) {
  const auto copy = [](const Tensor& source, Tensor& target) {
    if (source.defined()) std::memcpy(target.bytes(), source.bytes(), source.num_bytes());
  };
  copy(from.codes, to.codes);
  copy(from.scales, to.scales);
  copy(from.zeros, to.zeros);
}

}  // namespace

size_t record_bytes(const WeightFormat& format, const ExpertShape& shape) {
  return round_up_to_direct(down_offset(format, shape) + packed_bytes(format, down_shape(shape)));
}

ExpertMatrices record_at(std::byte* memory, const WeightFormat& format, const ExpertShape& shape) {
  ExpertMatrices matrices{borrow_packed(format, gate_up_shape(shape), memory),
                          borrow_packed(format, down_shape(shape), memory + down_offset(format, shape))};
  for (PackedMatrix* matrix : {&matrices.gate_up, &matrices.down}) {
    if (format.kind == WeightKind::kBF16) matrix->activations = shape.bf16_activations;
    if (format.kind == WeightKind::kF32) matrix->activations = ActivationFormat::kF32;
  }
  return matrices;
}

void fill_record(const ExpertMatrices& matrices, const ExpertShape& shape, std::byte* memory) {
  const WeightFormat& format = matrices.down.format;
  std::memset(memory, 0, record_bytes(format, shape));
  ExpertMatrices record = record_at(memory, format, shape);
  copy_matrix(matrices.gate_up, record.gate_up);
  copy_matrix(matrices.down, record.down);
}

}  // namespace skipper
