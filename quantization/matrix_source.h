// The matrices that will be packed, read as panels of float rows whatever their layout in the original checkpoint.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/packed_matrix.h"
#include "tensor/tensor.h"

namespace skipper {

enum class RowOrder : uint8_t {
  kRows,     // tensor [N, K]
  kColumns,  // tensor [K, columns]: row n of the matrix is column first_column + n
};

// One weight matrix [num_rows, K] in the mapping of a checkpoint.
struct WeightView {
  std::string name;  // of the checkpoint's tensor, for messages
  Tensor tensor;     // bf16, f16 or f32
  RowOrder order = RowOrder::kRows;
  int64_t first_column = 0;
  int64_t num_rows = 0;

  int64_t num_columns() const { return tensor.dim(order == RowOrder::kRows ? 1 : 0); }
};

// A packed matrix of the output and where its weights come from.
struct MatrixSource {
  std::string name;  // without ".codes"
  WeightFormat format;
  PackedShape shape;
  std::vector<WeightView> parts;  // one, or two whose panels stand in turn

  int64_t num_panels() const { return (shape.num_rows + kPanelRows - 1) / kPanelRows; }
  // Of the original, padding not counted.
  int64_t num_weights() const;
};

struct PanelRange {
  int64_t begin = 0;
  int64_t end = 0;
};

// The rows of these panels [rows, K] f32, exactly as in the checkpoint; rows that pad a part are zeros. Throws InvalidFile
// naming the tensor and the place of a NaN or infinite weight.
Tensor read_panels(const MatrixSource& source, const PanelRange& panels);

}  // namespace skipper
