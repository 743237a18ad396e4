#include "audit/audit_lines.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <optional>

#include "audit/logged_placement.h"
#include "base/error.h"
#include "base/json_fields.h"

namespace skipper {

using nlohmann::json;

namespace {

constexpr int kFloatDigits = 9;  // the fewest with which every float reads back exactly, also by way of a double
constexpr int64_t kMaxRanks = 65536;
constexpr int64_t kMaxExperts = 1 << 20;

// Writes decisions without a tree of values in between: there is one per token and layer.
class LineWriter {
 public:
  LineWriter& key(std::string_view name) {
    text_ += text_.empty() ? "{\"" : ",\"";
    text_.append(name).append("\":");
    return *this;
  }

  void value(int64_t number) { append_digits(number); }
  void value(uint64_t number) { append_digits(number); }
  void value(bool truth) { text_ += truth ? "true" : "false"; }
  void value(float number) {
    if (!std::isfinite(number)) {
      text_ += "null";
      return;
    }
    std::array<char, 32> digits;
    char* const last = digits.data() + digits.size();
    text_.append(digits.data(), std::to_chars(digits.data(), last, number, std::chars_format::general, kFloatDigits).ptr);
  }
  void value(std::string_view name) { text_.append("\"").append(name).append("\""); }  // one of ours, without quotes inside

  template <typename Printed, typename T>
  void list(const std::vector<T>& items) {
    text_ += '[';
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) text_ += ',';
      value(static_cast<Printed>(items[i]));
    }
    text_ += ']';
  }

  std::string end() { return std::move(text_.append("}\n")); }

 private:
  template <typename T>
  void append_digits(T number) {
    std::array<char, 24> digits;
    text_.append(digits.data(), std::to_chars(digits.data(), digits.data() + digits.size(), number).ptr);
  }

  std::string text_;
};

std::string to_hex(std::span<const std::byte> bytes) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text;
  for (const std::byte byte : bytes) {
    text += kDigits[std::to_integer<size_t>(byte >> 4)];
    text += kDigits[std::to_integer<size_t>(byte & std::byte{15})];
  }
  return text;
}

// Nothing when the text is no pairs of hexadecimal digits.
std::optional<std::vector<std::byte>> from_hex(std::string_view text) {
  std::vector<std::byte> bytes(text.size() / 2);
  for (size_t i = 0; i < bytes.size(); ++i) {
    uint8_t value = 0;
    const char* first = text.data() + 2 * i;
    if (std::from_chars(first, first + 2, value, 16).ptr != first + 2) return std::nullopt;
    bytes[i] = std::byte{value};
  }
  return text.size() % 2 == 0 ? std::optional(bytes) : std::nullopt;
}

json parse_object(std::string_view line, const std::string& where) {
  json object = json::parse(line, nullptr, false);
  if (object.is_object()) return object;
  throw InvalidFile(where + ": is no JSON object; the file was changed or damaged");
}

// Lists over layers and experts must fit the header: the rules index them.
bool fits(const OperatingPoint& point, const AuditHeader& header) {
  const auto num_layers = static_cast<size_t>(header.num_moe_layers);
  const size_t num_scales = num_layers * static_cast<size_t>(header.num_experts);
  for (size_t c = 0; c < kNumSkippableClasses; ++c) {
    if (point.alpha[c].size() != num_layers) return false;
    if (!point.beta[c].empty() && point.beta[c].size() != num_layers) return false;
    if (!point.identity_bypass[c].empty() && point.identity_bypass[c].size() != num_layers) return false;
  }
  for (const std::vector<uint8_t>& layers : point.exempt_layers) {
    if (!layers.empty() && layers.size() != num_layers) return false;
  }
  return point.expert_scale.empty() || point.expert_scale.size() == num_scales;
}

LevelTable parse_levels(const json& line, const AuditHeader& header, const std::string& where) {
  const JsonFields fields(line, where);
  const auto bytes = from_hex(fields.required_string("encoded"));
  if (!bytes) fields.fail("encoded", "is not hexadecimal; the file was changed or damaged");
  LevelTable levels;
  try {
    levels = decode_level_table(*bytes);
  } catch (const CommError&) {
    fields.fail("encoded", "is no level table of this build; replay with the version that wrote the file");
  }
  if (json::parse(describe(levels)) != fields.raw("table")) {
    fields.fail("table", "differs from the encoded table; the file was changed");
  }
  const auto fits_header = [&](const OperatingPoint& point) { return fits(point, header); };
  const bool all_fit = std::all_of(levels.levels.begin(), levels.levels.end(), fits_header);
  if (!all_fit) fields.fail("table", "has other layers or experts than the first line of the file");
  fields.reject_unknown_keys();
  return levels;
}

template <size_t N>
size_t parse_name(const JsonFields& fields, const std::string& key, const std::array<std::string_view, N>& names) {
  const std::string text = fields.required_string(key);
  const auto found = std::find(names.begin(), names.end(), text);
  if (found == names.end()) fields.fail(key, "'" + text + "' is unknown");
  return static_cast<size_t>(found - names.begin());
}

const json& list_at(const JsonFields& fields, const std::string& key) {
  const json& list = fields.raw(key);
  if (!list.is_array()) fields.fail(key, "expected a list");
  return list;
}

// Non-finite numbers were written as null.
std::vector<float> parse_floats(const JsonFields& fields, const std::string& key) {
  std::vector<float> values;
  for (const json& value : list_at(fields, key)) {
    if (!value.is_number() && !value.is_null()) fields.fail(key, "expected numbers");
    values.push_back(value.is_null() ? NAN : static_cast<float>(value.get<double>()));
  }
  return values;
}

std::vector<bool> parse_truths(const JsonFields& fields, const std::string& key) {
  std::vector<bool> values;
  for (const json& value : list_at(fields, key)) {
    if (!value.is_boolean()) fields.fail(key, "expected true or false");
    values.push_back(value.get<bool>());
  }
  return values;
}

std::vector<int32_t> parse_ints(const JsonFields& fields, const std::string& key, int64_t max) {
  const std::vector<int64_t> values = fields.optional_ints(key, 0, max);
  return {values.begin(), values.end()};
}

void check_lengths(const JsonFields& fields, const RoutingRecord& record) {
  const size_t top_k = record.experts.size();
  if (top_k == 0) fields.fail("experts", "is empty");
  if (record.weights.size() != top_k) fields.fail("weights", "has another length than experts");
  if (record.kept.size() != top_k) fields.fail("kept", "has another length than experts");
}

void check_shadows(const JsonFields& fields, const RoutingRecord& record) {
  if (record.on_shadow.size() != record.kept.size()) fields.fail("on_shadow", "has another length than experts");
  for (size_t slot = 0; slot < record.kept.size(); ++slot) {
    if (record.on_shadow[slot] && !record.kept[slot]) fields.fail("on_shadow", "is true of an expert that is not kept");
  }
}

RoutingRecord parse_record(const json& line, const AuditHeader& header, const std::string& where) {
  const JsonFields fields(line, where);
  RoutingRecord record;
  record.request = static_cast<uint64_t>(fields.required_int("request", 0, INT64_MAX));
  record.position = static_cast<int32_t>(fields.required_int("position", 0, INT32_MAX));
  record.layer = static_cast<int>(fields.required_int("layer", 0, INT32_MAX));
  record.moe_layer = static_cast<int>(fields.required_int("moe_layer", 0, header.num_moe_layers - 1));
  record.token_class = TokenClass{static_cast<uint8_t>(parse_name(fields, "class", kTokenClassNames))};
  record.phase = TokenPhase{static_cast<uint8_t>(parse_name(fields, "phase", kTokenPhaseNames))};
  record.level = static_cast<uint8_t>(fields.required_int("level", 0, UINT8_MAX));
  record.plan_version = static_cast<uint32_t>(fields.optional_int("plan_version", 0, 1, UINT32_MAX));
  record.experts = parse_ints(fields, "experts", header.num_experts - 1);
  record.weights = parse_floats(fields, "weights");
  record.kept = parse_truths(fields, "kept");
  if (!header.shadow_errors.empty()) record.on_shadow = parse_truths(fields, "on_shadow");
  record.scores = parse_floats(fields, "scores");
  record.threshold = static_cast<float>(fields.required_number("threshold", 0.0, 1e30));
  record.destinations = parse_ints(fields, "destinations", header.world_size() - 1);
  fields.reject_unknown_keys();
  check_lengths(fields, record);
  if (!header.shadow_errors.empty()) check_shadows(fields, record);
  return record;
}

// One list for each layer.
template <typename T>
json by_layer(const std::vector<T>& values, int num_experts) {
  json layers = json::array();
  for (size_t i = 0; i < values.size(); ++i) {
    if (i % static_cast<size_t>(num_experts) == 0) layers.push_back(json::array());
    layers.back().push_back(values[i] == T{-1} ? json(nullptr) : json(values[i]));
  }
  return layers;
}

// What by_layer() made of a number for every expert.
std::vector<json> values_of_experts(const JsonFields& fields, const std::string& key, const AuditHeader& header) {
  std::vector<json> values;
  const json& layers = list_at(fields, key);
  const auto fits = [&](const json& layer) {
    return layer.is_array() && layer.size() == static_cast<size_t>(header.num_experts);
  };
  if (layers.size() != static_cast<size_t>(header.num_moe_layers) || !std::ranges::all_of(layers, fits)) {
    fields.fail(key, "expected a list of " + std::to_string(header.num_experts) + " for each of " +
                         std::to_string(header.num_moe_layers) + " layers");
  }
  for (const json& layer : layers) values.insert(values.end(), layer.begin(), layer.end());
  return values;
}

std::vector<int32_t> parse_owners(const JsonFields& placement, const AuditHeader& header) {
  std::vector<int32_t> owners;
  for (const json& value : values_of_experts(placement, "owners", header)) {
    const bool is_rank = value.is_number_unsigned() && value.get<uint64_t>() < static_cast<uint64_t>(header.world_size());
    if (!is_rank) placement.fail("owners", value.dump() + " is no rank of " + std::to_string(header.world_size()));
    owners.push_back(value.get<int32_t>());
  }
  return owners;
}

// After the owners.
std::vector<float> parse_shadow_errors(const JsonFields& placement, const AuditHeader& header) {
  std::vector<float> errors;
  for (const json& value : values_of_experts(placement, "shadow_errors", header)) {
    const bool is_error = value.is_null() || (value.is_number() && value.get<double>() >= 0.0 && value.get<double>() <= 1.0);
    if (!is_error) placement.fail("shadow_errors", value.dump() + " is no error; expected 0 to 1, or null for no shadow");
    errors.push_back(value.is_null() ? kNoShadow : static_cast<float>(value.get<double>()));
  }
  const ExpertPlacement owners = placement_of(header);
  for (size_t i = 0; i < errors.size(); ++i) {
    const auto [layer, expert] = std::div(static_cast<int>(i), header.num_experts);
    if (errors[i] == kNoShadow || owners.owner({layer, expert}).rank != header.rank) continue;
    placement.fail("shadow_errors", "rank " + std::to_string(header.rank) + " has a shadow of expert " + std::to_string(expert) +
                                        " of MoE layer " + std::to_string(layer) + ", which it owns");
  }
  return errors;
}

}  // namespace

std::string to_line(const AuditHeader& header) {
  json placement = {{"rule", "contiguous"}, {"ranks", header.world_size()}, {"nodes", header.node_of_rank}};
  if (!header.owners.empty()) {
    placement["rule"] = "owners";
    placement["owners"] = by_layer(header.owners, header.num_experts);
  }
  if (!header.shadow_errors.empty()) placement["shadow_errors"] = by_layer(header.shadow_errors, header.num_experts);
  const json line = {{"skipper_audit", kAuditVersion},
                     {"model_fingerprint", header.model_fingerprint},
                     {"moe_layers", header.num_moe_layers},
                     {"experts", header.num_experts},
                     {"rank", header.rank},
                     {"placement", placement},
                     {"bytes_per_row", header.bytes_per_row}};
  return line.dump() + "\n";
}

std::string to_line(const LevelTable& levels) {
  std::vector<std::byte> bytes;
  encode(levels, bytes);
  return json({{"table", json::parse(describe(levels))}, {"encoded", to_hex(bytes)}}).dump() + "\n";
}

std::string to_line(const RoutingRecord& record) {
  LineWriter line;
  line.key("request").value(record.request);
  line.key("position").value(int64_t{record.position});
  line.key("layer").value(int64_t{record.layer});
  line.key("moe_layer").value(int64_t{record.moe_layer});
  line.key("class").value(kTokenClassNames[static_cast<size_t>(record.token_class)]);
  line.key("phase").value(kTokenPhaseNames[static_cast<size_t>(record.phase)]);
  line.key("level").value(int64_t{record.level});
  if (record.plan_version > 0) line.key("plan_version").value(int64_t{record.plan_version});
  line.key("experts").list<int64_t>(record.experts);
  line.key("weights").list<float>(record.weights);
  line.key("kept").list<bool>(record.kept);
  if (!record.on_shadow.empty()) line.key("on_shadow").list<bool>(record.on_shadow);
  line.key("scores").list<float>(record.scores);
  line.key("threshold").value(record.threshold);
  line.key("destinations").list<int64_t>(record.destinations);
  return line.end();
}

AuditHeader parse_audit_header(std::string_view line, const std::string& where) {
  const json object = json::parse(line, nullptr, false);
  if (!object.is_object() || !object.contains("skipper_audit")) {
    throw InvalidFile(where + ": is not the start of an audit file; make one with skipper serve --audit_file FILE");
  }
  const JsonFields fields(object, where);
  const int64_t version = fields.required_int("skipper_audit", 0, INT32_MAX);
  if (version != kAuditVersion) {
    fields.fail("skipper_audit", "has version " + std::to_string(version) + " but this build reads version " +
                                     std::to_string(kAuditVersion) + "; replay with the version that wrote the file");
  }
  const JsonFields placement = fields.required_object("placement");
  const std::string rule = placement.required_string("rule");
  if (rule != "contiguous" && rule != "owners") placement.fail("rule", "is unknown to this build");
  AuditHeader header;
  header.model_fingerprint = fields.required_string("model_fingerprint");
  header.num_moe_layers = static_cast<int>(fields.required_int("moe_layers", 1, INT16_MAX));
  header.num_experts = static_cast<int>(fields.required_int("experts", 1, kMaxExperts));
  const int64_t num_ranks = placement.required_int("ranks", 1, kMaxRanks);
  for (const int64_t node : placement.optional_ints("nodes", 0, kMaxRanks)) header.node_of_rank.push_back(static_cast<int>(node));
  if (header.world_size() != num_ranks) placement.fail("nodes", "expected one per rank");
  header.rank = static_cast<int>(fields.required_int("rank", 0, num_ranks - 1));
  header.bytes_per_row = fields.required_int("bytes_per_row", 0, INT32_MAX);
  if (rule == "owners") header.owners = parse_owners(placement, header);
  if (placement.has("shadow_errors")) header.shadow_errors = parse_shadow_errors(placement, header);
  placement.reject_unknown_keys();
  fields.reject_unknown_keys();
  return header;
}

AuditEntry parse_audit_entry(std::string_view line, const AuditHeader& header, const std::string& where) {
  const json object = parse_object(line, where);
  if (object.contains("table")) return parse_levels(object, header, where);
  return parse_record(object, header, where);
}

}  // namespace skipper
