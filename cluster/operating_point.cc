#include "cluster/operating_point.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/byte_codec.h"
#include "base/error.h"

namespace skipper {

namespace {

constexpr size_t kMinLevelBytes = 64;  // encoded; a bound on what a broken count can allocate

bool all_zero(const std::vector<float>& values) {
  return std::ranges::all_of(values, [](float value) { return value == 0.0f; });
}

bool pair_rule_is_off(const OperatingPoint& point) {
  const auto is_zero = [](float value) { return value == 0.0f; };
  if (point.pair_rule == PairRule::kScore) {
    return std::ranges::all_of(point.tau, is_zero) && point.tau_generated.value_or(0.0f) == 0.0f;
  }
  if (point.pair_rule == PairRule::kTopK) return std::ranges::all_of(point.kept_k, is_zero);
  return std::ranges::all_of(point.beta, all_zero);
}

// Of the thresholds of groups, [class][hop].
template <typename Thresholds>
bool are_zero(const Thresholds& thresholds) {
  return std::ranges::all_of(thresholds, [](const auto& of_class) {
    return std::ranges::all_of(of_class, [](float tau) { return tau == 0.0f; });
  });
}

bool has_batch_rule(const OperatingPoint& point) {
  return point.rank_capacity > 0.0f || point.decode_base_k > 0 || point.decode_rank_experts > 0;
}

bool bypasses_no_layer(const OperatingPoint& point) {
  return std::ranges::all_of(point.identity_bypass, [](const std::vector<uint8_t>& layers) {
    return std::ranges::all_of(layers, [](uint8_t bypass) { return bypass == 0; });
  });
}

// The one list of a point's fields: writing, reading and so comparing between ranks all follow it.
template <typename Point, typename Visitor>
void visit_fields(Point& point, Visitor& visit) {
  visit(point.pair_rule);
  for (auto& values : point.alpha) visit(values);
  visit(point.tau);
  visit(point.tau_generated);
  visit(point.kept_k);
  for (auto& values : point.beta) visit(values);
  visit(point.expert_scale);
  visit(point.expert_similarity);
  visit(point.tau_dst);
  visit(point.destination_score);
  visit(point.tau_shadow);
  visit(point.exempt_local);
  visit(point.rank_capacity);
  visit(point.decode_base_k);
  visit(point.decode_rank_experts);
  visit(point.protect_top1);
  visit(point.protect_margin);
  visit(point.protect_attention);
  visit(point.renormalize);
  for (auto& values : point.identity_bypass) visit(values);
  for (auto& values : point.exempt_layers) visit(values);
}

struct FieldWriter {
  ByteWriter& bytes;

  void operator()(bool field) { bytes.value<uint8_t>(field ? 1 : 0); }
  void operator()(const std::optional<float>& field) {
    (*this)(field.has_value());
    bytes.value(field.value_or(0.0f));  // always there: an optional's own bytes may hold anything
  }
  template <typename T>
  void operator()(const std::vector<T>& field) {
    bytes.values(field);
  }
  template <typename T>
  void operator()(const T& field) {
    bytes.value(field);
  }
};

struct FieldReader {
  ByteReader& bytes;

  void operator()(bool& field) { field = bytes.value<uint8_t>() != 0; }
  void operator()(std::optional<float>& field) {
    const bool is_there = bytes.value<uint8_t>() != 0;
    const auto value = bytes.value<float>();
    field = is_there ? std::optional(value) : std::nullopt;
  }
  template <typename T>
  void operator()(std::vector<T>& field) {
    field = bytes.values<T>();
  }
  template <typename T>
  void operator()(T& field) {
    field = bytes.value<T>();
  }
};

void check_enumerators(const OperatingPoint& point) {
  if (point.pair_rule <= PairRule::kSimilar && point.destination_score <= DestinationScore::kSum) return;
  throw CommError("malformed level table: a rule has no such value; do all ranks run the same build?");
}

nlohmann::json described(const OperatingPoint& point) {
  nlohmann::json fields = to_json(point);
  if (!bypasses_no_layer(point)) fields["identity_bypass"] = point.identity_bypass;
  if (point.exempt_layers != ExemptLayers{}) fields["exempt_layers"] = point.exempt_layers;
  return fields;
}

}  // namespace

bool OperatingPoint::skips_nothing() const {
  return pair_rule_is_off(*this) && are_zero(tau_dst) && !uses_shadows() && !has_batch_rule(*this) && bypasses_no_layer(*this);
}

bool OperatingPoint::uses_shadows() const { return !are_zero(tau_shadow); }

bool OperatingPoint::depends_on_placement() const {
  return !are_zero(tau_dst) || uses_shadows() || exempt_local || rank_capacity > 0.0f || decode_rank_experts > 0;
}

bool OperatingPoint::depends_on_batch() const {
  return has_batch_rule(*this) || (protect_attention > 0.0f && !skips_nothing());
}

PlacementWorld placement_world(const ClusterTopology& topology) {
  std::vector<int> ranks_of_node(static_cast<size_t>(topology.num_nodes()));
  for (int rank = 0; rank < topology.num_ranks(); ++rank) ++ranks_of_node[static_cast<size_t>(topology.node_of(rank))];
  return {.ranks = topology.num_ranks(), .ranks_per_node = *std::ranges::max_element(ranks_of_node)};
}

std::string describe(const LevelTable& table) {
  nlohmann::json levels = nlohmann::json::array();
  for (const OperatingPoint& point : table.levels) levels.push_back(described(point));
  return nlohmann::json({{"version", table.version}, {"levels", levels}}).dump();
}

void encode(const LevelTable& table, std::vector<std::byte>& out) {
  ByteWriter writer(out);
  writer.value(table.version);
  writer.value<uint64_t>(table.levels.size());
  FieldWriter fields{writer};
  for (const OperatingPoint& point : table.levels) visit_fields(point, fields);
}

LevelTable decode_level_table(std::span<const std::byte> bytes) {
  ByteReader reader(bytes, "level table");
  LevelTable table;
  table.version = reader.value<uint32_t>();
  table.levels.resize(reader.count(kMinLevelBytes));
  FieldReader fields{reader};
  for (OperatingPoint& point : table.levels) {
    visit_fields(point, fields);
    check_enumerators(point);
  }
  reader.expect_end();
  return table;
}

LevelTable unskipped_levels(int num_moe_layers) {
  OperatingPoint point;
  for (std::vector<float>& alpha : point.alpha) {
    alpha.assign(static_cast<size_t>(num_moe_layers), 1.0f / static_cast<float>(std::max(num_moe_layers, 1)));
  }
  LevelTable table;
  table.levels.push_back(std::move(point));
  return table;
}

}  // namespace skipper
