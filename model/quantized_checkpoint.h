// What a checkpoint written by `skipper quantize` looks like: its key in config.json and the names of its tensors.
//
// config.json is the original's with one key more, so that other programs refuse it by name instead of missing tensors:
//
//   "quantization_config": {
//     "quant_method": "skipper", "version": 1,
//     "source_fingerprint": "0123456789abcdef",   model_fingerprint() of the original
//     "experts": "int4a-g32",                     format of every expert without one of its own
//     "expert_formats": [{"layer": 3, "expert": 17, "format": "int8-g64"}, ...],   optional; layer counts decoder layers
//     "dense": "int8-g64",                        optional; absent: dense weights are the original's tensors
//     "calibration": {"data": "calibration", "samples": 1520, "tokens": 183000}   optional: rounded by activations over this
//   }
//
// Every expert, and with "dense" every dense matrix, is a PackedMatrix (kernels/packed_matrix.h) of up to three tensors, the
// bytes as they lie in memory:
//
//   NAME.codes   U8   [panels, bytes per panel]     on a multiple of 64 bytes of the file
//   NAME.scales  BF16 [panels, groups, 16]          integer formats
//   NAME.zeros   U8   [panels, groups, 16]          asymmetric formats
//
//   NAME                                         matrix
//   {text}layers.L.mlp.experts.E.gate_up         panels of gate_proj and up_proj in turn: gate 0, up 0, gate 1, ...
//   {text}layers.L.mlp.experts.E.down            [H, I]
//   {text}layers.L.self_attn.{q,k,v,o}_proj      dense; a bias stays NAME.bias
//   {text}layers.L.mlp.{gate,up,down}_proj       dense, of layers without experts
//   lm_head                                      dense; also where the head is tied: then the embedding is there as well
//
// All other tensors (embedding, norms, routers, biases, vision tower) have the original's names, types and bytes.
//
// It is a model of its own: its fingerprint differs, so operating points, calibrations and plans made for the original are
// refused with both fingerprints named, and have to be measured anew.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <utility>

#include "base/json_fields.h"
#include "kernels/packed_matrix.h"
#include "tensor/safetensors.h"

namespace skipper {

inline constexpr const char* kQuantizationKey = "quantization_config";

// Decoder layer and expert, as in tensor names.
using LayerAndExpert = std::pair<int64_t, int64_t>;

// The data over which activations were measured before rounding.
struct CalibrationRecord {
  std::string data;     // name of the file or directory
  int64_t samples = 0;  // that were run
  int64_t tokens = 0;   // rows that a dense matrix saw

  friend bool operator==(const CalibrationRecord&, const CalibrationRecord&) = default;
};

// The formats of a quantised checkpoint.
struct QuantizedFormats {
  std::string source_fingerprint;
  WeightFormat experts;                                   // the default
  std::map<LayerAndExpert, WeightFormat> expert_formats;  // the exceptions
  std::optional<WeightFormat> dense;                      // absent: the original's tensors
  std::optional<CalibrationRecord> calibration = {};      // absent: rounded by the weights alone

  const WeightFormat& of_expert(int64_t layer, int64_t expert) const;
  friend bool operator==(const QuantizedFormats&, const QuantizedFormats&) = default;
};

// Layers and experts that exceptions may name.
struct ExpertRange {
  int64_t num_layers = 0;
  int64_t num_experts = 0;
};

// The formats in config.json; nothing when the checkpoint is not quantised. Throws InvalidFile naming the key: another
// program's quantisation, an unknown version, key or format, an exception for an expert that does not exist or named twice.
std::optional<QuantizedFormats> read_quantized_formats(const JsonFields& config_root, const ExpertRange& range);
nlohmann::json to_json(const QuantizedFormats& formats);

// Gate and up [I, H] with their panels in turn: both are padded to whole panels.
PackedShape gate_up_shape(int64_t intermediate_size, int64_t hidden_size);

// "model.layers.3.mlp.experts.17." from the prefix of the text model ("model.").
std::string expert_prefix(const std::string& text_prefix, int64_t layer, int64_t expert);

// The matrix under `name`, as views of the checkpoint's mapping; its activations are the format's usual ones. Codes that do not
// lie on a multiple of 64 bytes, which other programs may write, are copied. Throws InvalidFile naming the tensor: missing,
// of another shape or element type.
PackedMatrix read_packed(const Checkpoint& checkpoint, const std::string& name, const WeightFormat& format,
                         const PackedShape& shape);

}  // namespace skipper
