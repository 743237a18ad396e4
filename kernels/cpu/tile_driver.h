// Multiplies rows of activations with packed matrices of any formats, on all threads: the one loop nest behind linear() and
// the expert products. What a format has to supply stands in kernels/cpu/tile_policy.h.
//
// Two parallel phases, and one before them where rows are gathered: then each row of x is converted once for all products into
// the words that a policy broadcasts. First every row tile (up to 13 rows of one matrix) gets its words, rows interleaved. Then
// tasks of (matrix, block of row tiles, some panels) multiply: for a few panels at a time, which stay in the second-level
// cache, all row tiles of the block in turn. A tile holds whole sums over K, so neither tiles, nor blocks, nor threads can change
// a bit.
#pragma once

#include <cstdint>
#include <span>

#include "base/thread_pool.h"
#include "kernels/cpu/tile_policy.h"
#include "kernels/packed_matrix.h"
#include "tensor/tensor.h"

namespace skipper::cpu {

// Rows of activations: row r is x[r], or x[row_index[r]] where there is an index.
struct ActivationRows {
  const Tensor& x;                     // [T, K] f32 or bf16
  const int32_t* row_index = nullptr;  // or null
};

// Rows [row_begin, row_begin + num_rows) times one matrix.
struct PanelProduct {
  const PackedMatrix* matrix = nullptr;
  int64_t row_begin = 0;
  int64_t num_rows = 0;
};

// Finished sums of a row tile and up to eight panels; panel p of row r starts at sums[r · kSumsStride + 16 · p].
struct TileSums {
  const float* sums = nullptr;  // [num_rows][kSumsStride], aligned to 64 bytes
  int64_t product = 0;          // its place among the products
  int64_t row_begin = 0;        // as in ActivationRows
  int64_t num_rows = 0;
  int64_t panel_begin = 0;      // even
  int64_t num_panels = 0;
};

// What becomes of the sums: called on any thread, once for every (row, panel) of every product. Panel_begin is even and a
// product with an even number of panels is handed over in whole pairs.
class TileFinish {
 public:
  template <typename Function>
  explicit TileFinish(const Function& function)
      : function_(&function),
        call_([](const void* object, const TileSums& sums) { (*static_cast<const Function*>(object))(sums); }) {}
  void operator()(const TileSums& sums) const { call_(function_, sums); }

 private:
  const void* function_;
  void (*call_)(const void*, const TileSums&);
};

// Uses memory of the calling thread that only grows.
void multiply_panels(const ActivationRows& rows, std::span<const PanelProduct> products, const TileFinish& finish,
                     ThreadPool& workers);

// The policy for a matrix's format and activations on the instruction set in use.
const TilePolicy& policy_of(const PackedMatrix& matrix);

}  // namespace skipper::cpu
