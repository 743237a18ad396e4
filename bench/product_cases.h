// Products with packed weights as a model makes them, checked and timed: a dense layer and the experts of a MoE layer.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/thread_pool.h"
#include "kernels/packed_matrix.h"
#include "tensor/device_runtime.h"

namespace skipper {

struct ProductWork {
  double operations = 0.0;    // multiplications and additions
  double weight_bytes = 0.0;  // of the matrices that have rows
};

// One product, ready to run again and again over weights that the caches have forgotten.
class ProductCase {
 public:
  virtual ~ProductCase() = default;
  virtual void run(Stream& stream) = 0;
  // Of the run that comes next.
  virtual ProductWork next_work() const = 0;
  // Relative error (root mean square) of sample outputs against sums in double precision over the weights as packed and
  // activations as given.
  virtual double measure_error(Stream& stream) = 0;
};

struct DenseShape {
  int64_t num_rows = 0;     // M, tokens
  int64_t num_outputs = 0;  // N
  int64_t num_inputs = 0;   // K
};
std::unique_ptr<ProductCase> make_dense_case(const WeightFormat& format, const DenseShape& shape);

struct ExpertsShape {
  int64_t num_tokens = 0;
  int64_t num_experts = 0;
  int64_t top_k = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
};
// Gate, up and SwiGLU, then down, each token with `top_k` experts drawn anew for every run.
std::unique_ptr<ProductCase> make_experts_case(const WeightFormat& format, const ExpertsShape& shape);

}  // namespace skipper
