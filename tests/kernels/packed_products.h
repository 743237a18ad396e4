// Weight formats that products are tested with, and what the products must be close to.
#pragma once

#include <cmath>
#include <ostream>
#include <string>
#include <vector>

#include "kernels/cpu/instruction_set.h"
#include "kernels/packed_matrix.h"
#include "tests/kernels/random_tensors.h"

namespace skipper {

// How weights and activations are stored, and the tolerance against sums in double precision over exactly these rounded
// operands: what is left is the FP32 rounding of serial sums, and of vdpbf16ps, which counts denormals as zero.
struct ProductFormat {
  WeightFormat weights;
  ActivationFormat activations;
  double tolerance;
};
inline const ProductFormat kFloatProducts[] = {
    {{WeightKind::kF32, 0}, ActivationFormat::kF32, 2e-5},
    {{WeightKind::kF32, 0}, ActivationFormat::kBF16, 2e-5},
    {{WeightKind::kBF16, 0}, ActivationFormat::kF32, 2e-5},
    {{WeightKind::kBF16, 0}, ActivationFormat::kBF16, 2e-5},
};

inline std::string name_of_product(const testing::TestParamInfo<ProductFormat>& info) {
  const ActivationFormat activations = info.param.activations;
  const char* name = activations == ActivationFormat::kF32 ? "f32" : (activations == ActivationFormat::kBF16 ? "bf16" : "int8");
  std::string weights = name_of(info.param.weights);
  for (char& c : weights) c = c == '-' ? '_' : c;
  return weights + "_times_" + name;
}

inline PackedMatrix pack_for(const ProductFormat& format, const Tensor& w) {
  PackedMatrix packed = pack(w, format.weights);
  packed.activations = format.activations;
  return packed;
}

// The sum of serially added terms of size 1 may be off by this.
inline double product_tolerance(const ProductFormat& format, int64_t depth) {
  return format.tolerance * (1.0 + std::sqrt(static_cast<double>(depth)) / 8);
}

// x as the matrix meets it, in double precision.
inline std::vector<double> activations_as_doubles(const Tensor& x, ActivationFormat format) {
  std::vector<double> values = as_doubles(x);
  if (format == ActivationFormat::kBF16) {
    for (double& value : values) value = double{static_cast<float>(bf16(static_cast<float>(value)))};
  }
  return values;
}

// x [M, K] · w [N, K]ᵀ in double precision.
inline std::vector<double> exact_product(const std::vector<double>& x, const std::vector<double>& w, int64_t depth,
                                         int64_t num_rows, int64_t num_columns) {
  std::vector<double> y;
  for (int64_t m = 0; m < num_rows; ++m) {
    for (int64_t n = 0; n < num_columns; ++n) {
      double sum = 0;
      for (int64_t k = 0; k < depth; ++k) sum += x[static_cast<size_t>(m * depth + k)] * w[static_cast<size_t>(n * depth + k)];
      y.push_back(sum);
    }
  }
  return y;
}

// check() once for every instruction set of this CPU.
template <typename Check>
void on_each_isa(const Check& check) {
  for (const cpu::Isa isa : cpu::available_isas()) {
    SCOPED_TRACE(std::string(cpu::name_of(isa)));
    const cpu::IsaOverride forced(isa);
    check();
  }
}

}  // namespace skipper
