#include "model/quantized_checkpoint.h"

#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "experts/gate_up_panels.h"

namespace skipper {

using nlohmann::json;

namespace {

constexpr const char* kMethod = "skipper";
constexpr size_t kVectorBytes = 64;

WeightFormat read_format(const JsonFields& fields, const std::string& key) {
  const std::string text = fields.required_string(key);
  try {
    const WeightFormat format = parse_weight_format(text, fields.path() + ": " + key);
    if (format.kind == WeightKind::kF32) fields.fail(key, "'f32' is no format of a quantised checkpoint");
    return format;
  } catch (const InvalidRequest& error) {
    throw InvalidFile(error.what());
  }
}

void read_exception(const JsonFields& fields, const ExpertRange& range, QuantizedFormats& formats) {
  const LayerAndExpert id{fields.required_int("layer", 0, range.num_layers - 1),
                          fields.required_int("expert", 0, range.num_experts - 1)};
  const WeightFormat format = read_format(fields, "format");
  fields.reject_unknown_keys();
  if (!formats.expert_formats.emplace(id, format).second) {
    const std::string where = "expert " + std::to_string(id.second) + " of layer " + std::to_string(id.first);
    fields.fail("expert", "names " + where + " a second time");
  }
}

void read_exceptions(const JsonFields& fields, const ExpertRange& range, QuantizedFormats& formats) {
  const json& list = fields.raw("expert_formats");
  if (list.is_null()) return;
  if (!list.is_array()) fields.fail("expert_formats", "is no list; expected objects with layer, expert and format");
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string path = fields.path() + ": expert_formats[" + std::to_string(i) + "]";
    if (!list[i].is_object()) throw InvalidFile(path + ": is no object; expected layer, expert and format");
    read_exception(JsonFields(list[i], path), range, formats);
  }
}

std::optional<CalibrationRecord> read_calibration(const JsonFields& fields) {
  const std::optional<JsonFields> calibration = fields.optional_object("calibration");
  if (!calibration) return {};
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  CalibrationRecord record{calibration->required_string("data"), calibration->required_int("samples", 1, kMost),
                           calibration->required_int("tokens", 1, kMost)};
  calibration->reject_unknown_keys();
  return record;
}

Tensor typed_tensor(const Checkpoint& checkpoint, const std::string& name, const Shape& shape, DType dtype) {
  const Tensor tensor = checkpoint.get(name, shape);
  if (tensor.dtype() == dtype) return tensor;
  throw InvalidFile(checkpoint.directory().string() + ": tensor " + name + " has element type " +
                    std::string(name_of(tensor.dtype())) + ", expected " + std::string(name_of(dtype)) +
                    "; quantise the original again");
}

Tensor aligned(const Tensor& tensor) {
  if (reinterpret_cast<uintptr_t>(tensor.bytes()) % kVectorBytes == 0) return tensor;
  Tensor copy = Tensor::empty(tensor.shape(), tensor.dtype());
  std::memcpy(copy.bytes(), tensor.bytes(), tensor.num_bytes());
  return copy;
}

}  // namespace

const WeightFormat& QuantizedFormats::of_expert(int64_t layer, int64_t expert) const {
  const auto found = expert_formats.find({layer, expert});
  return found == expert_formats.end() ? experts : found->second;
}

std::optional<QuantizedFormats> read_quantized_formats(const JsonFields& config_root, const ExpertRange& range) {
  const std::optional<JsonFields> fields = config_root.optional_object(kQuantizationKey);
  if (!fields) return {};
  const std::string method = fields->optional_string("quant_method", "");
  if (method != kMethod) {
    fields->fail("quant_method", "'" + method + "' is not supported; use a checkpoint in BF16, or one of `skipper quantize`");
  }
  fields->required_int("version", 1, 1);
  QuantizedFormats formats;
  formats.source_fingerprint = fields->required_string("source_fingerprint");
  formats.experts = read_format(*fields, "experts");
  read_exceptions(*fields, range, formats);
  if (fields->has("dense")) formats.dense = read_format(*fields, "dense");
  formats.calibration = read_calibration(*fields);
  fields->reject_unknown_keys();
  return formats;
}

json to_json(const QuantizedFormats& formats) {
  json result = {{"quant_method", kMethod},
                 {"version", 1},
                 {"source_fingerprint", formats.source_fingerprint},
                 {"experts", name_of(formats.experts)}};
  for (const auto& [id, format] : formats.expert_formats) {
    result["expert_formats"].push_back({{"layer", id.first}, {"expert", id.second}, {"format", name_of(format)}});
  }
  if (formats.dense) result["dense"] = name_of(*formats.dense);
  if (const auto& record = formats.calibration) {
    result["calibration"] = {{"data", record->data}, {"samples", record->samples}, {"tokens", record->tokens}};
  }
  return result;
}

PackedShape gate_up_shape(int64_t intermediate_size, int64_t hidden_size) {
  return joined_shape({intermediate_size, hidden_size});
}

std::string expert_prefix(const std::string& text_prefix, int64_t layer, int64_t expert) {
  return text_prefix + "layers." + std::to_string(layer) + ".mlp.experts." + std::to_string(expert) + ".";
}

PackedMatrix read_packed(const Checkpoint& checkpoint, const std::string& name, const WeightFormat& format,
                         const PackedShape& shape) {
  const int64_t panels = (shape.num_rows + kPanelRows - 1) / kPanelRows;
  PackedMatrix matrix;
  matrix.format = format;
  matrix.activations = format.is_integer() ? ActivationFormat::kInt8 : ActivationFormat::kBF16;
  matrix.num_rows = shape.num_rows;
  matrix.num_columns = shape.num_columns;
  const Shape codes{panels, panel_bytes(format, shape.num_columns)};
  matrix.codes = aligned(typed_tensor(checkpoint, name + ".codes", codes, DType::kU8));
  if (!format.is_integer()) return matrix;
  const Shape groups{panels, (shape.num_columns + format.group_size - 1) / format.group_size, kPanelRows};
  matrix.scales = typed_tensor(checkpoint, name + ".scales", groups, DType::kBF16);
  if (format.is_asymmetric()) matrix.zeros = typed_tensor(checkpoint, name + ".zeros", groups, DType::kU8);
  return matrix;
}

}  // namespace skipper
