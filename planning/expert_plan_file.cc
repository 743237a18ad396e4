// plan.json, as planning/expert_plan.h describes it.
#include <array>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json_fields.h"
#include "planning/expert_plan.h"

namespace skipper {
namespace {

using nlohmann::json;

constexpr int64_t kMaxCount = int64_t{1} << 31;
constexpr int64_t kMaxBytes = int64_t{1} << 60;
constexpr double kMaxNumber = 1e300;
constexpr std::array<MemoryTier, kNumMemoryTiers> kTiers = {MemoryTier::kDevice, MemoryTier::kHost, MemoryTier::kDisk};

// One of `names`, as its index.
template <size_t N>
size_t choice(const JsonFields& fields, const std::string& key, const std::array<std::string_view, N>& names) {
  const std::string text = fields.required_string(key);
  std::string expected;
  for (size_t i = 0; i < N; ++i) {
    if (text == names[i]) return i;
    expected += (i == 0 ? "" : i + 1 == N ? " or " : ", ") + std::string(names[i]);
  }
  fields.fail(key, "'" + text + "' is unknown; expected " + expected);
}

WeightFormat read_format(const JsonFields& fields, const std::string& key, const std::string& text) {
  try {
    return parse_weight_format(text, fields.path() + ": " + key);
  } catch (const InvalidRequest& error) {
    throw InvalidFile(error.what());
  }
}

ExpertCopy read_copy(const json& object, const std::string& path) {
  const JsonFields fields(object, path);
  ExpertCopy copy;
  copy.id.layer = static_cast<int32_t>(fields.required_int("layer", 0, kMaxCount - 1));
  copy.id.expert = static_cast<int32_t>(fields.required_int("expert", 0, kMaxCount - 1));
  copy.rank = static_cast<int32_t>(fields.required_int("rank", 0, kMaxCount - 1));
  copy.slot = static_cast<int32_t>(fields.required_int("slot", 0, kMaxCount - 1));
  copy.format = read_format(fields, "format", fields.required_string("format"));
  copy.tier = kTiers[choice<3>(fields, "tier", {"device", "host", "disk"})];
  copy.runs_on = choice<2>(fields, "runs_on", {"device", "host"}) == 0 ? ComputePlace::kDevice : ComputePlace::kHost;
  copy.role = fields.optional_bool("shadow", false) ? CopyRole::kShadow : CopyRole::kServing;
  copy.hash = fields.optional_string("hash", "");
  fields.reject_unknown_keys();
  return copy;
}

size_t read_bytes(const JsonFields& fields, const std::string& key) {
  return static_cast<size_t>(fields.required_int(key, 0, kMaxBytes));
}

TierBudget read_tier(const JsonFields& fields) {
  TierBudget tier;
  tier.budget_bytes = read_bytes(fields, "budget");
  tier.use.runtime = read_bytes(fields, "runtime");
  tier.use.dense_weights = read_bytes(fields, "dense_weights");
  tier.use.kv_cache = read_bytes(fields, "kv_cache");
  tier.use.buffers = read_bytes(fields, "buffers");
  tier.use.reference_experts = static_cast<size_t>(fields.optional_int("reference_experts", 0, 0, kMaxBytes));
  const JsonFields experts = fields.required_object("experts");
  for (const auto& [format, bytes] : fields.raw("experts").items()) {
    read_format(experts, format, format);
    tier.use.experts[format] = read_bytes(experts, format);
  }
  fields.reject_unknown_keys();
  return tier;
}

RankPlanMemory read_rank(const json& object, const std::string& path) {
  const JsonFields fields(object, path);
  RankPlanMemory rank;
  for (const MemoryTier tier : kTiers) {
    if (const auto section = fields.optional_object(std::string(name_of(tier)))) rank.tiers[tier] = read_tier(*section);
  }
  fields.reject_unknown_keys();
  return rank;
}

// read(object, path) of each element of the list `key`.
template <typename Read>
auto read_list(const JsonFields& fields, const std::string& key, const Read& read) {
  const json& list = fields.raw(key);
  if (!list.is_array()) fields.fail(key, "is missing; expected a list");
  std::vector<decltype(read(list, std::string()))> values;
  values.reserve(list.size());
  for (const json& element : list) {
    values.push_back(read(element, fields.path() + ": " + key + "[" + std::to_string(values.size()) + "]"));
  }
  return values;
}

PlanSubject read_subject(const JsonFields& file) {
  PlanSubject subject;
  subject.model_fingerprint = file.required_string("model_fingerprint");
  subject.num_moe_layers = static_cast<int>(file.required_int("num_moe_layers", 0, 1 << 20));
  subject.num_experts = static_cast<int>(file.required_int("num_experts", 1, 1 << 20));
  subject.world_size = static_cast<int>(file.required_int("world_size", 1, 1 << 20));
  return subject;
}

PlanOrigin read_origin(const JsonFields& fields) {
  constexpr std::array<std::string_view, 3> kTargets = {"quality", "throughput", "max_loss"};
  constexpr std::array<std::string_view, 2> kProfiles = {"measured", "analytic"};
  PlanOrigin origin;
  origin.target = kTargets[choice<3>(fields, "target", kTargets)];
  origin.profile = kProfiles[choice<2>(fields, "profile", kProfiles)];
  origin.kv_tokens_per_rank = fields.required_int("kv_tokens_per_rank", 0, kMaxBytes);
  if (fields.has("operating_point")) origin.operating_point = fields.required_string("operating_point");
  fields.reject_unknown_keys();
  return origin;
}

PlanPrediction read_prediction(const JsonFields& fields) {
  PlanPrediction predicted;
  predicted.loss = fields.required_number("loss", 0.0, kMaxNumber);
  predicted.expert_bits = fields.required_number("expert_bits", 0.0, 32.0);
  predicted.bytes_per_token = fields.required_number("bytes_per_token", 0.0, kMaxNumber);
  predicted.seconds_per_token = fields.required_number("seconds_per_token", 0.0, kMaxNumber);
  fields.reject_unknown_keys();
  return predicted;
}

PlanCertificate read_certificate(const JsonFields& fields) {
  constexpr std::array<std::string_view, 2> kMethods = {"lagrangian", "exact"};
  PlanCertificate certificate;
  certificate.loss_bound = fields.required_number("loss_bound", 0.0, kMaxNumber);
  certificate.seconds_bound = fields.required_number("seconds_bound", 0.0, kMaxNumber);
  certificate.gap = fields.required_number("gap", 0.0, kMaxNumber);
  certificate.method = kMethods[choice<2>(fields, "method", kMethods)];
  fields.reject_unknown_keys();
  return certificate;
}

void check_subject(const JsonFields& file, const PlanSubject& found, const PlanSubject& wanted) {
  if (found.model_fingerprint != wanted.model_fingerprint) {
    file.fail("model_fingerprint", "made for model " + found.model_fingerprint + " but the loaded model is " +
                                       wanted.model_fingerprint + "; run 'skipper plan' on this model");
  }
  const auto require_same = [&](const char* key, int value, int expected) {
    if (value == expected) return;
    file.fail(key, std::to_string(value) + ", but here it is " + std::to_string(expected) + "; run 'skipper plan' again");
  };
  require_same("num_moe_layers", found.num_moe_layers, wanted.num_moe_layers);
  require_same("num_experts", found.num_experts, wanted.num_experts);
  if (found.world_size == wanted.world_size) return;
  file.fail("world_size", "made for " + std::to_string(found.world_size) + " ranks but " + std::to_string(wanted.world_size) +
                              " were started; start as many, or run 'skipper plan --ranks " +
                              std::to_string(wanted.world_size) + "'");
}

ExpertPlan read_plan(const json& document, const std::string& where, const PlanSubject* wanted) {
  const JsonFields file(document, where);
  file.required_int("version", 1, 1);
  ExpertPlan plan;
  plan.subject = read_subject(file);
  if (wanted != nullptr) check_subject(file, plan.subject, *wanted);
  plan.origin = read_origin(file.required_object("origin"));
  plan.copies = read_list(file, "copies", read_copy);
  plan.ranks = read_list(file, "ranks", read_rank);
  plan.predicted = read_prediction(file.required_object("predicted"));
  plan.certificate = read_certificate(file.required_object("certificate"));
  file.reject_unknown_keys();
  check_expert_plan(plan, where);
  return plan;
}

// Keys in the order in which they are documented.
using ordered = nlohmann::ordered_json;

ordered to_object(const ExpertCopy& copy) {
  return {{"layer", copy.id.layer}, {"expert", copy.id.expert}, {"rank", copy.rank}, {"slot", copy.slot},
          {"format", name_of(copy.format)}, {"tier", name_of(copy.tier)}, {"runs_on", name_of(copy.runs_on)},
          {"shadow", copy.role == CopyRole::kShadow}, {"hash", copy.hash}};
}

ordered to_object(const RankPlanMemory& rank) {
  ordered object = ordered::object();
  for (const auto& [tier, budget] : rank.tiers) {
    const MemoryUse& use = budget.use;
    ordered experts = ordered::object();
    for (const auto& [format, bytes] : use.experts) experts[format] = bytes;
    ordered& section = object[std::string(name_of(tier))];
    section = {{"budget", budget.budget_bytes}, {"runtime", use.runtime}, {"dense_weights", use.dense_weights},
               {"kv_cache", use.kv_cache}, {"buffers", use.buffers}, {"experts", experts}};
    if (use.reference_experts > 0) section["reference_experts"] = use.reference_experts;
  }
  return object;
}

// One element a line: plans are read and compared by people, too.
template <typename Elements>
std::string list_of(const Elements& elements) {
  std::string text = "[";
  for (size_t i = 0; i < elements.size(); ++i) text += (i == 0 ? "\n  " : ",\n  ") + to_object(elements[i]).dump();
  return text + "]";
}

}  // namespace

ExpertPlan load_expert_plan(const std::filesystem::path& path, const PlanSubject& subject) {
  return read_plan(read_json_file(path), path.string(), &subject);
}

ExpertPlan load_expert_plan(const std::filesystem::path& path) { return read_plan(read_json_file(path), path.string(), nullptr); }

ExpertPlan parse_expert_plan(const std::string& text, const std::string& where, const PlanSubject& subject) {
  const json document = json::parse(text, nullptr, false);
  if (document.is_discarded()) throw InvalidFile(where + ": is no JSON");
  return read_plan(document, where, &subject);
}

std::string to_json(const ExpertPlan& plan) {
  ordered origin = {{"target", plan.origin.target}, {"profile", plan.origin.profile},
                    {"kv_tokens_per_rank", plan.origin.kv_tokens_per_rank}};
  if (plan.origin.operating_point) origin["operating_point"] = *plan.origin.operating_point;
  const ordered head = {{"version", 1}, {"model_fingerprint", plan.subject.model_fingerprint},
                        {"num_moe_layers", plan.subject.num_moe_layers}, {"num_experts", plan.subject.num_experts},
                        {"world_size", plan.subject.world_size}, {"origin", origin}};
  const PlanPrediction& predicted = plan.predicted;
  const PlanCertificate& certificate = plan.certificate;
  const ordered tail = {{"predicted", {{"loss", predicted.loss}, {"expert_bits", predicted.expert_bits},
                                       {"bytes_per_token", predicted.bytes_per_token},
                                       {"seconds_per_token", predicted.seconds_per_token}}},
                        {"certificate", {{"loss_bound", certificate.loss_bound}, {"seconds_bound", certificate.seconds_bound},
                                         {"gap", certificate.gap}, {"method", certificate.method}}}};
  std::string text = head.dump();
  text.pop_back();
  return text + ",\n \"copies\": " + list_of(plan.copies) + ",\n \"ranks\": " + list_of(plan.ranks) + ",\n " +
         tail.dump().substr(1) + "\n";
}

}  // namespace skipper
