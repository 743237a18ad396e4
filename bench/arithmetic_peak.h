// How fast one thread multiplies and adds when nothing has to be loaded: the bound of every dense product.
#pragma once

#include "kernels/cpu/instruction_set.h"
#include "kernels/weight_format.h"

namespace skipper {

// The instruction that products with such activations spend their time in on `isa`, and what one thread reaches with it.
struct ArithmeticPeak {
  const char* instruction = "";
  double operations_per_second = 0.0;  // a multiplication and an addition each
};

// Runs for some milliseconds; the best of several runs is the peak.
ArithmeticPeak measure_arithmetic_peak(ActivationFormat activations, cpu::Isa isa);

}  // namespace skipper
