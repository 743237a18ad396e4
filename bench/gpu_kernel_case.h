// One line of the table of GPU kernels: what to check, what to time, and what a library would take.
#pragma once

#include <functional>
#include <string>

namespace skipper::cuda {

struct GpuKernelCase {
  std::string name;
  double operations = 0.0;  // multiplications and additions of products; 0 for kernels that only move and add
  double num_bytes = 0.0;   // of a run: weights of products, keys and values of attention, rows read and written of the others
  double allowed_error = 0.0;
  std::function<double()> measure_error;  // relative to the reference; also loads the kernels
  std::function<void(int)> run;           // run i may take other weights or rows than run i + 1, so that caches do not help
  std::function<void(int)> library;       // the same by cuBLAS; empty: there is nothing like it
  bool library_can_be_captured = true;
};

// Cases are made only where their name passes, and visited while their operands live.
using CaseFilter = std::function<bool(const std::string&)>;
using CaseVisitor = std::function<void(const GpuKernelCase&)>;

}  // namespace skipper::cuda
