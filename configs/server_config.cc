#include "configs/server_config.h"

#include <chrono>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/config_limit.h"
#include "base/error.h"
#include "base/json_fields.h"

namespace skipper {
namespace {

using std::chrono::milliseconds;

// One list of keys per section; it drives reading and printing alike, so the two cannot differ.
template <typename Visitor>
void visit_fields(EngineConfig& config, Visitor& visit) {
  visit("max_tokens_per_step", config.max_tokens_per_step);
  visit("max_sequences_per_rank", config.max_sequences_per_rank);
  visit("max_logit_rows", config.max_logit_rows);
  visit("kv_blocks_per_rank", config.kv_blocks_per_rank);
  visit("kv_block_size", config.kv_block_size);
  visit("max_model_len", config.max_model_len);
  visit("queue_capacity", config.queue_capacity);
  visit("idle_heartbeat_ms", config.idle_heartbeat);
}

template <typename Visitor>
void visit_fields(CpuConfig& config, Visitor& visit) {
  visit("threads", config.threads);
}

template <typename Visitor>
void visit_fields(GpuConfig& config, Visitor& visit) {
  visit("cuda_graphs", config.cuda_graphs);
  visit("node_relay", config.node_relay);
  visit("reserved_mb", config.reserved_mb);
  visit("device_expert_mb", config.device_expert_mb);
  visit("host_experts", config.host_experts);
}

template <typename Visitor>
void visit_fields(CommConfig& config, Visitor& visit) {
  visit("deadline_ms", config.deadline);
}

template <typename Visitor>
void visit_fields(ClusterConfig& config, Visitor& visit) {
  visit("plan_patience_ms", config.plan_patience);
  visit("max_plan_bytes", config.max_plan_bytes);
}

template <typename Visitor>
void visit_fields(DispatchConfig& config, Visitor& visit) {
  visit("payload_dtype", config.payload_format);
  visit("combine_dtype", config.combine_dtype);
  visit("payload", config.payload);
}

template <typename Visitor>
void visit_fields(SkipGateConfig& config, Visitor& visit) {
  visit("switch_off", config.switch_off);
  visit("window_steps", config.window_steps);
}

template <typename Visitor>
void visit_fields(GuardConfig& config, Visitor& visit) {
  visit("share", config.share);
  visit("request_share", config.request_share);
  visit("max_error_ratio", config.max_error_ratio);
  visit("max_kl", config.max_kl);
  visit("min_rows", config.min_rows);
  visit("window_rows", config.window_rows);
  visit("min_tokens", config.min_tokens);
  visit("window_tokens", config.window_tokens);
  visit("reference_experts", config.reference_experts);
  visit("reference_model", config.reference_model);
  visit("log", config.log);
}

template <typename Visitor>
void visit_fields(FrontendConfig& config, Visitor& visit) {
  visit("host", config.host);
  visit("port", config.port);
  visit("max_connections", config.max_connections);
  visit("processor_threads", config.processor_threads);
  visit("max_target_bytes", config.max_target_bytes);
  visit("max_header_bytes", config.max_header_bytes);
  visit("max_body_bytes", config.max_body_bytes);
  visit("max_inflight_body_bytes", config.max_inflight_body_bytes);
  visit("max_json_values", config.max_json_values);
  visit("max_json_depth", config.max_json_depth);
  visit("max_messages", config.max_messages);
  visit("max_images", config.max_images);
  visit("max_image_bytes", config.max_image_bytes);
  visit("max_choices", config.max_choices);
  visit("max_stop_strings", config.max_stop_strings);
  visit("max_stop_bytes", config.max_stop_bytes);
  visit("max_stop_token_ids", config.max_stop_token_ids);
  visit("header_timeout_ms", config.header_timeout);
  visit("idle_timeout_ms", config.idle_timeout);
  visit("body_timeout_ms", config.body_timeout);
  visit("write_timeout_ms", config.write_timeout);
  visit("drain_timeout_ms", config.drain_timeout);
  visit("stall_timeout_ms", config.stall_timeout);
}

template <typename Visitor>
void visit_fields(ImageLimits& config, Visitor& visit) {
  visit("max_bytes", config.max_bytes);
  visit("max_pixels", config.max_pixels);
  visit("max_side", config.max_side);
  visit("min_side", config.min_side);
}

template <typename Visitor>
void visit_fields(WeightConfig& config, Visitor& visit) {
  visit("experts", config.experts);
  visit("dense", config.dense);
  visit("activation_dtype", config.activation_dtype);
  visit("residence", config.residence);
}

template <typename Visitor>
void visit_fields(ResidencyConfig& config, Visitor& visit) {
  visit("cache_mb", config.cache_mb);
  visit("eviction", config.eviction);
  visit("foresight", config.foresight);
  visit("reads", config.reads);
}

struct KvCacheSection {
  DType& dtype;
};

template <typename Visitor>
void visit_fields(KvCacheSection& config, Visitor& visit) {
  visit("dtype", config.dtype);
}

template <typename Visitor>
void visit_sections(ServerConfig& config, Visitor& visitor) {
  visitor.section("engine", config.engine);
  visitor.section("cpu", config.cpu);
  visitor.section("gpu", config.gpu);
  visitor.section("comm", config.comm);
  visitor.section("cluster", config.cluster);
  visitor.section("dispatch", config.dispatch);
  visitor.section("skipping", config.skipping);
  visitor.section("guard", config.guard);
  visitor.section("frontend", config.frontend);
  visitor.section("images", config.images);
  visitor.section("weights", config.weights);
  visitor.section("residency", config.residency);
  KvCacheSection kv_cache{config.kv_dtype};
  visitor.section("kv_cache", kv_cache);
}

DType parse_dtype(const JsonFields& fields, const char* key, DType fallback) {
  const std::string name = fields.optional_string(key, std::string(name_of(fallback)));
  if (name == "bf16") return DType::kBF16;
  if (name == "f32") return DType::kF32;
  fields.fail(key, "'" + name + "' is not supported; use bf16 or f32");
}

// Absent or null: as in the checkpoint.
std::optional<WeightFormat> parse_format(const JsonFields& fields, const char* key) {
  if (!fields.has(key)) return {};
  try {
    return parse_weight_format(fields.required_string(key), fields.path() + ": " + key);
  } catch (const InvalidRequest& error) {
    throw InvalidFile(error.what());
  }
}

// Reads the keys of one section; an absent key leaves the default in place. Ranges are validate()'s business.
struct FieldReader {
  const JsonFields& fields;

  static constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
  static constexpr double kMost = std::numeric_limits<double>::max();

  void operator()(const char* key, int64_t& value) { value = fields.optional_int(key, value, -kMax, kMax); }
  void operator()(const char* key, bool& value) { value = fields.optional_bool(key, value); }
  void operator()(const char* key, double& value) { value = fields.optional_number(key, value, -kMost, kMost); }
  void operator()(const char* key, size_t& value) {
    value = static_cast<size_t>(fields.optional_int(key, static_cast<int64_t>(value), 0, kMax));
  }
  void operator()(const char* key, milliseconds& value) {
    value = milliseconds(fields.optional_int(key, value.count(), 0, kMax));
  }
  void operator()(const char* key, std::string& value) { value = fields.optional_string(key, value); }
  void operator()(const char* key, DType& value) { value = parse_dtype(fields, key, value); }
  void operator()(const char* key, PayloadFormat& value) {
    const std::string text = fields.optional_string(key, std::string(name_of(value)));
    value = parse_payload_format(text, fields.path() + ": " + key);
  }
  void operator()(const char* key, PayloadTravel& value) {
    const std::string text = fields.optional_string(key, std::string(name_of(value)));
    value = parse_payload_travel(text, fields.path() + ": " + key);
  }
  void operator()(const char* key, std::optional<WeightFormat>& value) { value = parse_format(fields, key); }
  void operator()(const char* key, WeightResidence& value) {
    const std::string text = fields.optional_string(key, std::string(name_of(value)));
    value = parse_weight_residence(text, fields.path() + ": " + key);
  }
  void operator()(const char* key, EvictionRule& value) {
    value = parse_eviction_rule(fields.optional_string(key, std::string(name_of(value))), fields.path() + ": " + key);
  }
  void operator()(const char* key, ForesightRule& value) {
    value = parse_foresight_rule(fields.optional_string(key, std::string(name_of(value))), fields.path() + ": " + key);
  }
  void operator()(const char* key, ReadMethod& value) {
    value = parse_read_method(fields.optional_string(key, std::string(name_of(value))), fields.path() + ": " + key);
  }
  void operator()(const char* key, GpuExpertTier& value) {
    value = parse_host_expert_tier(fields.optional_string(key, std::string(name_of(value))), fields.path() + ": " + key);
  }
};

struct SectionReader {
  const JsonFields& root;

  template <typename Section>
  void section(const char* name, Section& config) {
    const auto fields = root.optional_object(name);
    if (!fields) return;
    FieldReader reader{*fields};
    visit_fields(config, reader);
    fields->reject_unknown_keys();
  }
};

struct FieldPrinter {
  nlohmann::json& object;

  template <typename T>
  void operator()(const char* key, const T& value) {
    object[key] = value;
  }
  void operator()(const char* key, const milliseconds& value) { object[key] = value.count(); }
  void operator()(const char* key, const DType& value) { object[key] = name_of(value); }
  void operator()(const char* key, const PayloadFormat& value) { object[key] = name_of(value); }
  void operator()(const char* key, const PayloadTravel& value) { object[key] = name_of(value); }
  void operator()(const char* key, const WeightResidence& value) { object[key] = name_of(value); }
  void operator()(const char* key, const GpuExpertTier& value) { object[key] = name_of(value); }
  void operator()(const char* key, const EvictionRule& value) { object[key] = name_of(value); }
  void operator()(const char* key, const ForesightRule& value) { object[key] = name_of(value); }
  void operator()(const char* key, const ReadMethod& value) { object[key] = name_of(value); }
  void operator()(const char* key, const std::optional<WeightFormat>& value) {
    object[key] = value ? nlohmann::json(name_of(*value)) : nlohmann::json();
  }
};

struct SectionPrinter {
  nlohmann::json& root;

  template <typename Section>
  void section(const char* name, Section& config) {
    FieldPrinter printer{root[name]};
    visit_fields(config, printer);
  }
};

// A tier is its level, or {"level": n, "policy": NAME}.
void read_service_tiers(const JsonFields& root, ServerConfig& config) {
  const nlohmann::json& section = root.raw("service_tiers");
  if (section.is_null()) return;
  if (!section.is_object()) root.fail("service_tiers", "expected an object of tier names and levels, found " + section.dump());
  const JsonFields fields(section, root.path() + ": service_tiers");
  for (const auto& [name, value] : section.items()) {
    if (!value.is_object()) {
      config.service_tiers[name] = fields.required_int(name, 0, 255);
      continue;
    }
    const JsonFields tier = fields.required_object(name);
    config.service_tiers[name] = tier.required_int("level", 0, 255);
    config.tier_policies[name] = tier.required_string("policy");
    tier.reject_unknown_keys();
  }
}

PolicyConfig read_policies(const JsonFields& root) {
  PolicyConfig config;
  const auto section = root.optional_object("policies");
  if (!section) return config;
  const nlohmann::json& plans = section->raw("plans");
  if (!plans.is_array() || plans.empty()) {
    section->fail("plans", R"(expected a list of {"name": NAME, "plan": FILE}, the best plan first)");
  }
  for (size_t i = 0; i < plans.size(); ++i) {
    const JsonFields plan(plans[i], section->path() + ".plans[" + std::to_string(i) + "]");
    const std::string name = plan.required_string("name");
    for (const PolicyFile& other : config.plans) {
      if (other.name == name) plan.fail("name", "there are two policies '" + name + "'; give each its own name");
    }
    if (name.empty()) plan.fail("name", "is empty");
    config.plans.push_back({.name = name, .plan = plan.required_string("plan")});
    plan.reject_unknown_keys();
  }
  config.first = section->optional_string("first", "");
  section->reject_unknown_keys();
  return config;
}

nlohmann::json to_json(const PolicyConfig& config) {
  nlohmann::json plans = nlohmann::json::array();
  for (const PolicyFile& file : config.plans) plans.push_back({{"name", file.name}, {"plan", file.plan.string()}});
  return {{"plans", std::move(plans)}, {"first", config.first}};
}

}  // namespace

void ServerConfig::validate() const {
  engine.validate();
  cpu.validate();
  gpu.validate();
  comm.validate();
  cluster.validate();
  dispatch.validate();
  skipping.validate();
  residency.validate();
  guard.validate();
  frontend.validate();
  weights.validate();
  // Otherwise an idle group would give itself up between two heartbeats.
  require({"cluster.plan_patience_ms", cluster.plan_patience.count(), 2 * engine.idle_heartbeat.count(), 86400000});
  require({"images.max_pixels", images.max_pixels, 1, int64_t{1} << 30});
  require({"images.max_side", images.max_side, 1, 1 << 20});
  require({"images.min_side", images.min_side, 1, images.max_side});
  const auto gold = service_tiers.find("gold");
  if (gold != service_tiers.end()) require({"service_tiers.gold", gold->second, 0, 0});
}

ServerConfig load_server_config(const std::filesystem::path& path) {
  ServerConfig config;
  if (!path.empty()) {
    const nlohmann::json json = read_json_file(path, size_t{16} << 20);
    const JsonFields root(json, path.string());
    root.optional_int("version", 1, 1, 1);
    SectionReader reader{root};
    visit_sections(config, reader);
    read_service_tiers(root, config);
    config.policies = read_policies(root);
    root.reject_unknown_keys();
  }
  config.service_tiers.emplace("gold", 0);
  return config;
}

std::string describe(const ServerConfig& config) {
  ServerConfig copy = config;
  nlohmann::json root;
  SectionPrinter printer{root};
  visit_sections(copy, printer);
  root["service_tiers"] = config.service_tiers;
  for (const auto& [tier, policy] : config.tier_policies) {
    root["service_tiers"][tier] = {{"level", config.service_tiers.at(tier)}, {"policy", policy}};
  }
  if (!config.policies.plans.empty()) root["policies"] = to_json(config.policies);
  return root.dump();
}

}  // namespace skipper
