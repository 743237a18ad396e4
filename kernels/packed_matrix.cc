#include "kernels/packed_matrix.h"

#include <glog/logging.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/cpu/element_type.h"
#include "kernels/cpu/word_transpose.h"
#include "kernels/integer_packing.h"
#include "kernels/operand_checks.h"

namespace skipper {
namespace {

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

struct Chunk {
  int64_t num_inputs;
  int64_t num_bytes;  // of a panel
};

Chunk chunk_of(WeightKind kind) {
  switch (kind) {
    case WeightKind::kF32:
      return {1, 64};
    case WeightKind::kBF16:
      return {2, 64};
    case WeightKind::kInt8:
      return {4, 64};
    case WeightKind::kInt4:
    case WeightKind::kInt4Asymmetric:
      return {8, 64};
    case WeightKind::kInt2Asymmetric:
      return {16, 64};
    case WeightKind::kInt3Asymmetric:
      return {32, 192};
  }
  LOG(FATAL) << "unknown weight kind";
}

// The tensors of a matrix, sizes alone.
struct PackedLayout {
  Shape codes;
  Shape scales;
  Shape zeros;
  int64_t codes_bytes = 0;
  int64_t scales_bytes = 0;  // 0 for floats
  int64_t zeros_bytes = 0;   // 0 unless asymmetric
};

PackedLayout layout_of(const WeightFormat& format, const PackedShape& shape) {
  const int64_t num_panels = divide_up(shape.num_rows, kPanelRows);
  PackedLayout layout;
  layout.codes = {num_panels, panel_bytes(format, shape.num_columns)};
  layout.codes_bytes = layout.codes.num_elements();
  if (!format.is_integer()) return layout;
  CHECK_GT(format.group_size, 0);
  const int64_t num_groups = divide_up(shape.num_columns, format.group_size);
  layout.scales = layout.zeros = {num_panels, num_groups, kPanelRows};
  layout.scales_bytes = layout.scales.num_elements() * int64_t{sizeof(bf16)};
  if (format.is_asymmetric()) layout.zeros_bytes = layout.zeros.num_elements();
  return layout;
}

PackedMatrix without_memory(const WeightFormat& format, const PackedShape& shape) {
  PackedMatrix packed;
  packed.format = format;
  packed.activations = format.is_integer() ? ActivationFormat::kInt8 : ActivationFormat::kBF16;
  packed.num_rows = shape.num_rows;
  packed.num_columns = shape.num_columns;
  return packed;
}

// Up to sixteen rows [num_rows, K] as elements of the packed kind: in place, or converted into `converted`.
template <typename Stored, typename T>
const Stored* stored_rows(const T* rows, int64_t num_elements, std::vector<Stored>& converted) {
  if constexpr (std::is_same_v<Stored, T>) {
    return rows;
  } else {
    if (converted.size() < static_cast<size_t>(num_elements)) converted.resize(static_cast<size_t>(num_elements));
    for (int64_t i = 0; i < num_elements; ++i) converted[static_cast<size_t>(i)] = Stored(static_cast<float>(rows[i]));
    return converted.data();
  }
}

// One panel, `panel` zeroed where no element comes. A chunk of sixteen rows is a row of words of the transposed rows.
template <typename Stored>
void pack_panel(const Stored* rows, int64_t num_rows, int64_t num_columns, uint8_t* panel) {
  constexpr int64_t kPerWord = sizeof(uint32_t) / sizeof(Stored);
  const int64_t num_words = num_columns / kPerWord;
  auto* words = reinterpret_cast<uint32_t*>(panel);
  if (num_rows < kPanelRows) std::memset(panel, 0, static_cast<size_t>(divide_up(num_columns, kPerWord) * kPanelRows) * 4);
  cpu::transpose_words({rows, num_rows, num_words, num_columns * int64_t{sizeof(Stored)}}, words, kPanelRows);
  if (num_words * kPerWord == num_columns) return;
  uint32_t* last = words + num_words * kPanelRows;
  std::memset(last, 0, kPanelRows * sizeof(uint32_t));
  for (int64_t row = 0; row < num_rows; ++row) std::memcpy(last + row, rows + (row + 1) * num_columns - 1, sizeof(Stored));
}

template <typename Stored>
void pack_float_rows(const Tensor& w, PackedMatrix& packed) {
  std::vector<Stored> converted;
  const int64_t num_columns = packed.num_columns;
  cpu::with_floats(w, [&](const auto* elements) {
    for (int64_t panel = 0; panel < packed.num_panels(); ++panel) {
      const int64_t begin = panel * kPanelRows;
      const int64_t num_rows = std::min(kPanelRows, w.dim(0) - begin);
      const Stored* rows = stored_rows<Stored>(elements + begin * num_columns, num_rows * num_columns, converted);
      pack_panel(rows, num_rows, num_columns, packed.codes.row<uint8_t>(panel));
    }
  });
}

template <typename Stored>
void unpack_floats(const PackedMatrix& packed, Tensor& out) {
  constexpr int64_t kPerChunk = sizeof(uint32_t) / sizeof(Stored);
  for (int64_t row = 0; row < packed.num_rows; ++row) {
    const auto* panel = reinterpret_cast<const Stored*>(packed.codes.row<uint8_t>(row / kPanelRows));
    for (int64_t k = 0; k < packed.num_columns; ++k) {
      const int64_t place = (k / kPerChunk * kPanelRows + row % kPanelRows) * kPerChunk + k % kPerChunk;
      out.row<float>(row)[k] = static_cast<float>(panel[place]);
    }
  }
}

}  // namespace

size_t PackedMatrix::num_bytes() const {
  size_t sum = codes.num_bytes();
  if (scales.defined()) sum += scales.num_bytes();
  if (zeros.defined()) sum += zeros.num_bytes();
  return sum;
}

PackedMatrix PackedMatrix::panels(int64_t begin, int64_t end) const {
  PackedMatrix part = *this;
  part.num_rows = std::clamp<int64_t>(num_rows - begin * kPanelRows, 0, (end - begin) * kPanelRows);
  part.codes = codes.slice(begin, end);
  if (scales.defined()) part.scales = scales.slice(begin, end);
  if (zeros.defined()) part.zeros = zeros.slice(begin, end);
  return part;
}

int64_t panel_bytes(const WeightFormat& format, int64_t num_columns) {
  const Chunk chunk = chunk_of(format.kind);
  return divide_up(num_columns, chunk.num_inputs) * chunk.num_bytes;
}

size_t packed_bytes(const WeightFormat& format, const PackedShape& shape) {
  const PackedLayout layout = layout_of(format, shape);
  return static_cast<size_t>(layout.codes_bytes + layout.scales_bytes + layout.zeros_bytes);
}

PackedMatrix empty_packed(const WeightFormat& format, const PackedShape& shape) {
  const PackedLayout layout = layout_of(format, shape);
  PackedMatrix packed = without_memory(format, shape);
  packed.codes = Tensor::empty(layout.codes, DType::kU8);
  if (format.is_integer()) packed.scales = Tensor::empty(layout.scales, DType::kBF16);
  if (format.is_asymmetric()) packed.zeros = Tensor::empty(layout.zeros, DType::kU8);
  return packed;
}

PackedMatrix borrow_packed(const WeightFormat& format, const PackedShape& shape, std::byte* memory) {
  CHECK_EQ(reinterpret_cast<uintptr_t>(memory) % 64, 0u) << "packed matrices start at multiples of 64 bytes";
  const PackedLayout layout = layout_of(format, shape);
  PackedMatrix packed = without_memory(format, shape);
  packed.codes = Tensor::borrow(memory, layout.codes, DType::kU8);
  std::byte* scales = memory + layout.codes_bytes;
  if (format.is_integer()) packed.scales = Tensor::borrow(scales, layout.scales, DType::kBF16);
  if (format.is_asymmetric()) packed.zeros = Tensor::borrow(scales + layout.scales_bytes, layout.zeros, DType::kU8);
  return packed;
}

void pack_into(const Tensor& w, PackedMatrix& packed) {
  check_on_host("pack_into", {&w, &packed.codes});
  check_floats("pack_into", w);
  CHECK(w.shape() == Shape({packed.num_rows, packed.num_columns}))
      << "pack_into: weight " << w.shape().to_string() << " into a matrix of " << packed.num_rows << " rows and "
      << packed.num_columns << " columns";
  if (packed.format.is_integer()) return pack_integer_rows(w, packed);
  if (packed.format.kind == WeightKind::kF32) return pack_float_rows<float>(w, packed);
  pack_float_rows<bf16>(w, packed);
}

void pack_gate_up(const Tensor& gate, const Tensor& up, PackedMatrix& packed) {
  CHECK(gate.shape() == up.shape()) << "pack_gate_up: gate " << gate.shape().to_string() << ", up " << up.shape().to_string();
  const int64_t num_pairs = divide_up(gate.dim(0), kPanelRows);
  CHECK_EQ(packed.num_panels(), 2 * num_pairs) << "pack_gate_up: gate " << gate.shape().to_string();
  for (int64_t pair = 0; pair < num_pairs; ++pair) {
    const int64_t begin = pair * kPanelRows, end = std::min(begin + kPanelRows, gate.dim(0));
    for (const auto& [w, panel] : {std::pair(&gate, 2 * pair), std::pair(&up, 2 * pair + 1)}) {
      PackedMatrix part = packed.panels(panel, panel + 1);
      part.num_rows = end - begin;
      pack_into(w->slice(begin, end), part);
    }
  }
}

PackedMatrix pack(const Tensor& w, const WeightFormat& format) {
  CHECK_EQ(w.shape().rank(), 2) << "pack: weight " << w.shape().to_string();
  PackedMatrix packed = empty_packed(format, {.num_rows = w.dim(0), .num_columns = w.dim(1)});
  pack_into(w, packed);
  return packed;
}

PackedMatrix copy_of(const PackedMatrix& packed) {
  PackedMatrix copy = empty_packed(packed.format, {.num_rows = packed.num_rows, .num_columns = packed.num_columns});
  std::copy_n(packed.codes.bytes(), packed.codes.num_bytes(), copy.codes.bytes());
  if (packed.scales.defined()) std::copy_n(packed.scales.bytes(), packed.scales.num_bytes(), copy.scales.bytes());
  if (packed.zeros.defined()) std::copy_n(packed.zeros.bytes(), packed.zeros.num_bytes(), copy.zeros.bytes());
  copy.activations = packed.activations;
  return copy;
}

Tensor unpack(const PackedMatrix& packed) {
  Tensor out = Tensor::empty({packed.num_rows, packed.num_columns}, DType::kF32);
  if (packed.format.is_integer()) {
    unpack_integer(packed, out);
  } else if (packed.format.kind == WeightKind::kF32) {
    unpack_floats<float>(packed, out);
  } else {
    unpack_floats<bf16>(packed, out);
  }
  return out;
}

}  // namespace skipper
