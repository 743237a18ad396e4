// A checkpoint that a test quantised into a directory of its own.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "model/model_config.h"
#include "quantization/checkpoint_quantizer.h"
#include "tensor/safetensors.h"
#include "tests/tensor/safetensors_writer.h"

namespace skipper {

inline void ignore_progress(size_t, size_t) {}

// Formats by name; an empty one for dense copies the dense weights.
inline QuantizationRequest request_for(const std::filesystem::path& model, const std::filesystem::path& out,
                                       const std::string& experts, const std::string& dense) {
  QuantizationRequest request{.model = model, .out = out, .experts = parse_weight_format(experts, "experts"), .dense = {}};
  if (!dense.empty()) request.dense = parse_weight_format(dense, "dense");
  return request;
}

class QuantizedCopy {
 public:
  QuantizedCopy(const std::filesystem::path& model, const std::string& experts, const std::string& dense, int threads = 2) {
    ThreadPool workers(threads);
    report_ = quantize_checkpoint(request_for(model, path(), experts, dense), workers, ignore_progress);
  }

  std::filesystem::path path() const { return directory_.path() / "out"; }
  const QuantizationReport& report() const { return report_; }

 private:
  TemporaryDirectory directory_;
  QuantizationReport report_;
};

}  // namespace skipper
