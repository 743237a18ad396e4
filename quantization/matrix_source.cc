#include "quantization/matrix_source.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "kernels/elementwise.h"

namespace skipper {
namespace {

struct RowRange {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t count() const { return end - begin; }
};

// Columns [begin, end) of tensor [K, columns] as rows of `out`. A few at a time: each pass fills that many cache lines.
template <typename T>
void turn_columns(const Tensor& tensor, const RowRange& columns, float* out) {
  constexpr int64_t kColumnsAtOnce = 32;
  const int64_t depth = tensor.dim(0), stride = tensor.dim(1);
  for (int64_t first = columns.begin; first < columns.end; first += kColumnsAtOnce) {
    const int64_t last = std::min(first + kColumnsAtOnce, columns.end);
    for (int64_t k = 0; k < depth; ++k) {
      const T* source = tensor.data<T>() + k * stride;
      for (int64_t column = first; column < last; ++column) {
        out[(column - columns.begin) * depth + k] = static_cast<float>(source[column]);
      }
    }
  }
}

Tensor converted_to_f32(const Tensor& tensor) {
  Tensor copy = Tensor::empty(tensor.shape(), DType::kF32);
  cpu::convert(tensor, copy);
  return copy;
}

void copy_rows(const WeightView& view, const RowRange& rows, Tensor out) {
  if (view.order == RowOrder::kRows) {
    const Tensor source = view.tensor.slice(rows.begin, rows.end);
    if (source.dtype() != DType::kF32) return cpu::convert(source, out);
    std::memcpy(out.bytes(), source.bytes(), source.num_bytes());
    return;
  }
  const RowRange columns{view.first_column + rows.begin, view.first_column + rows.end};
  switch (view.tensor.dtype()) {
    case DType::kBF16:
      return turn_columns<bf16>(view.tensor, columns, out.data<float>());
    case DType::kF32:
      return turn_columns<float>(view.tensor, columns, out.data<float>());
    default:
      return turn_columns<float>(converted_to_f32(view.tensor), columns, out.data<float>());
  }
}

void check_finite(const WeightView& view, const RowRange& rows, const Tensor& values) {
  constexpr uint32_t kExponent = 0x7f800000u;
  const std::span<const float> all = values.span<float>();
  // Without an early end the compiler makes vectors of it.
  bool is_finite = true;
  for (const float value : all) is_finite &= (std::bit_cast<uint32_t>(value) & kExponent) != kExponent;
  if (is_finite) return;
  const auto found = std::ranges::find_if(all, [](float value) { return !std::isfinite(value); });
  const int64_t index = found - all.begin(), columns = view.num_columns();
  throw InvalidFile("tensor " + view.name + " holds " + (std::isnan(*found) ? "NaN" : "an infinite value") + " for output " +
                    std::to_string(rows.begin + index / columns) + ", input " + std::to_string(index % columns) +
                    "; it cannot be quantised, download the checkpoint again");
}

void read_rows(const WeightView& view, const RowRange& rows, Tensor out) {
  if (rows.count() <= 0) return;
  copy_rows(view, rows, out);
  check_finite(view, rows, out);
}

// Panel p of the output is panel p / parts of part p % parts.
Tensor read_panels_in_turn(const MatrixSource& source, const PanelRange& panels) {
  const auto num_parts = static_cast<int64_t>(source.parts.size());
  Tensor out = Tensor::zeros({(panels.end - panels.begin) * kPanelRows, source.shape.num_columns}, DType::kF32);
  for (int64_t panel = panels.begin; panel < panels.end; ++panel) {
    const WeightView& view = source.parts[static_cast<size_t>(panel % num_parts)];
    const int64_t begin = panel / num_parts * kPanelRows, end = std::min(begin + kPanelRows, view.num_rows);
    const int64_t first = (panel - panels.begin) * kPanelRows;
    read_rows(view, {begin, end}, out.slice(first, first + end - begin));
  }
  return out;
}

}  // namespace

int64_t MatrixSource::num_weights() const {
  int64_t total = 0;
  for (const WeightView& part : parts) total += part.num_rows * part.num_columns();
  return total;
}

Tensor read_panels(const MatrixSource& source, const PanelRange& panels) {
  if (source.parts.size() > 1) return read_panels_in_turn(source, panels);
  const RowRange rows{panels.begin * kPanelRows, std::min(panels.end * kPanelRows, source.shape.num_rows)};
  Tensor out = Tensor::empty({rows.count(), source.shape.num_columns}, DType::kF32);
  read_rows(source.parts[0], rows, out);
  return out;
}

}  // namespace skipper
