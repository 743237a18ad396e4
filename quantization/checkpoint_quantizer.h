// From a checkpoint in BF16, F16 or F32 to a quantised one beside it, layer by layer.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>

#include "base/thread_pool.h"
#include "kernels/weight_format.h"
#include "model/quantized_checkpoint.h"
#include "quantization/activation_statistics.h"

namespace skipper {

// What a run of the original over calibration data gave.
struct Calibration {
  ActivationStatistics statistics;
  CalibrationRecord record;
};

struct QuantizationRequest {
  std::filesystem::path model;
  std::filesystem::path out;  // new, or an empty directory
  WeightFormat experts;
  std::optional<WeightFormat> dense;  // attention projections, dense feed-forward layers, head; absent: copied
  // Integer weights are rounded so that Σ importance · (weight − rounded)² becomes small; without it all inputs count alike.
  // Called once, when everything that is quick to find out has been checked; what it throws ends the work.
  std::function<Calibration()> calibrate = nullptr;
};

// What became of the matrices of one class.
struct PackedWeights {
  int64_t num_weights = 0;
  size_t packed_bytes = 0;      // codes, scales and zero points
  double squared_error = 0.0;   // Σ (weight − rounded)²
  double squared_weights = 0.0;  // Σ weight²

  double bits_per_weight() const;
  // √(Σ (weight − rounded)² / Σ weight²)
  double relative_error() const;
  PackedWeights& operator+=(const PackedWeights& other);
};

struct QuantizationReport {
  size_t bytes_before = 0;  // of the tensors
  size_t bytes_after = 0;
  PackedWeights experts;
  PackedWeights dense;
};

// Bytes of the original's tensors that are done, of how many. Called on the calling thread; what it throws ends the work.
using QuantizationProgress = std::function<void(size_t done, size_t total)>;

// Writes request.out: packed weights, the other tensors as they are, config.json with the formats, and the other small files
// (tokenizer, chat template, preprocessor). It appears under its name when it is complete; whatever goes wrong before leaves
// nothing. The result does not depend on the number of threads. Holds a few matrices in memory, and maps a layer.
// Throws InvalidFile naming file or tensor (a quantised or unsupported original, NaN or infinite weights), Error naming the
// output directory (exists, no space, not writable).
QuantizationReport quantize_checkpoint(const QuantizationRequest& request, ThreadPool& workers,
                                       const QuantizationProgress& progress);

}  // namespace skipper
