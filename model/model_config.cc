#include "model/model_config.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json_fields.h"
#include "model/model_fingerprint.h"

namespace skipper {

using nlohmann::json;

namespace {

constexpr int64_t kMaxSize = 1 << 20;

// What the two families do not write into config.json.
struct Family {
  const char* model_type;
  const char* architecture;
  const char* text_prefix;
  ExpertLayout expert_layout;
  bool has_vision;
  double default_rope_theta;
};
constexpr Family kFamilies[] = {
    {"qwen3_moe", "Qwen3MoeForCausalLM", "model.", ExpertLayout::kPerExpert, false, 10000.0},
    {"qwen3_vl_moe", "Qwen3VLMoeForConditionalGeneration", "model.language_model.", ExpertLayout::kFusedTransposed, true,
     500000.0},
};

const Family& find_family(const JsonFields& root) {
  const std::string model_type = root.required_string("model_type");
  for (const Family& family : kFamilies) {
    if (model_type == family.model_type) return family;
  }
  root.fail("model_type", "'" + model_type + "' is not supported; expected qwen3_moe or qwen3_vl_moe");
}

void check_architecture(const JsonFields& root, const Family& family) {
  const json& architectures = root.raw("architectures");
  if (architectures.is_null() || architectures == json::array({family.architecture})) return;
  root.fail("architectures", architectures.dump() + " is not supported; expected [\"" + family.architecture + "\"]");
}

void refuse_if(const JsonFields& fields, const std::string& key, bool refused) {
  if (refused) fields.fail(key, fields.raw(key).dump() + " is not supported; use a checkpoint without it");
}

// Keys outside the two families that would change the mathematics, had somebody set them.
void refuse_unsupported(const JsonFields& fields) {
  refuse_if(fields, "compression_config", fields.has("compression_config"));
  const std::string activation = fields.optional_string("hidden_act", "silu");
  refuse_if(fields, "hidden_act", activation != "silu" && activation != "swish");
  refuse_if(fields, "partial_rotary_factor", fields.optional_number("partial_rotary_factor", 1.0, 0.0, 1.0) != 1.0);
  for (const char* key : {"shared_expert_intermediate_size", "n_shared_experts"}) {
    refuse_if(fields, key, fields.optional_int(key, 0, 0, kMaxSize) != 0);
  }
  for (const json& type : fields.raw("layer_types")) refuse_if(fields, "layer_types", type != "full_attention");
}

// transformers reads the window only when use_sliding_window is set; qwen3_vl_moe has none whatever the file says.
void refuse_sliding_window(const JsonFields& text, const Family& family) {
  const bool windowed = text.optional_bool("use_sliding_window", false) && text.has("sliding_window");
  refuse_if(text, "sliding_window", windowed && !family.has_vision);
}

std::array<int64_t, 3> read_mrope_sections(const JsonFields& rope, int64_t num_frequencies) {
  if (!rope.optional_bool("mrope_interleaved", true)) {
    rope.fail("mrope_interleaved", "false is not supported; expected true");
  }
  std::vector<int64_t> sections = rope.optional_ints("mrope_section", 0, num_frequencies);
  if (!rope.has("mrope_section")) sections = {24, 20, 20};
  if (sections.size() != 3 || sections[0] + sections[1] + sections[2] != num_frequencies) {
    rope.fail("mrope_section", json(sections).dump() + " are not three sections of " + std::to_string(num_frequencies) +
                                   " frequencies, half of head_dim");
  }
  return {sections[0], sections[1], sections[2]};
}

void check_rope_type(const JsonFields& rope) {
  const std::string key = rope.has("rope_type") ? "rope_type" : "type";
  const std::string type = rope.optional_string(key, "default");
  // Old Qwen-VL files say "mrope" for what is now the default type with sections.
  if (type != "default" && type != "mrope") rope.fail(key, "'" + type + "' is not supported; expected default");
  if (rope.optional_number("partial_rotary_factor", 1.0, 0.0, 1.0) != 1.0) {
    rope.fail("partial_rotary_factor", "is not supported; expected 1");
  }
}

// transformers 4 wrote rope_theta beside rope_scaling, 5 writes rope_parameters; rope_scaling wins where both stand.
RotaryConfig read_rotary(const JsonFields& text, const Family& family, int64_t head_dim) {
  RotaryConfig rotary;
  rotary.dim = head_dim;
  rotary.theta = text.optional_number("rope_theta", family.default_rope_theta, 1.0, 1e12);
  const bool has_scaling = text.has("rope_scaling") && !text.raw("rope_scaling").empty();
  const json no_parameters = json::object();
  std::optional<JsonFields> rope = text.optional_object(has_scaling ? "rope_scaling" : "rope_parameters");
  if (!rope) rope.emplace(no_parameters, text.path());
  check_rope_type(*rope);
  rotary.theta = rope->optional_number("rope_theta", rotary.theta, 1.0, 1e12);
  if (family.has_vision) rotary.mrope_sections = read_mrope_sections(*rope, head_dim / 2);
  return rotary;
}

AttentionConfig read_attention(const JsonFields& text, const ModelConfig& model) {
  AttentionConfig attention;
  attention.num_heads = text.required_int("num_attention_heads", 1, 4096);
  attention.has_bias = text.optional_bool("attention_bias", false);
  const int64_t kv_heads = text.optional_int("num_key_value_heads", attention.num_heads, 1, 4096);
  if (attention.num_heads % kv_heads != 0) {
    text.fail("num_key_value_heads", std::to_string(kv_heads) + " does not divide num_attention_heads " +
                                         std::to_string(attention.num_heads));
  }
  const int64_t head_dim = text.optional_int("head_dim", model.hidden_size / attention.num_heads, 1, 4096);
  if (head_dim % 2 != 0 || head_dim == 0) text.fail("head_dim", std::to_string(head_dim) + " is not an even number");
  attention.kv = {kv_heads, head_dim, head_dim};
  return attention;
}

int64_t read_num_experts(const JsonFields& text) {
  const std::string key = text.has("num_local_experts") ? "num_local_experts" : "num_experts";
  const int64_t num_experts = text.required_int(key, 1, 65536);
  if (text.optional_int("num_experts", num_experts, 1, 65536) != num_experts) {
    text.fail("num_experts", "differs from num_local_experts " + std::to_string(num_experts));
  }
  return num_experts;
}

MoeConfig read_moe(const JsonFields& text, const Family& family) {
  MoeConfig moe;
  moe.num_experts = read_num_experts(text);
  moe.top_k = text.required_int("num_experts_per_tok", 1, moe.num_experts);
  moe.intermediate_size = text.required_int("moe_intermediate_size", 1, kMaxSize);
  moe.layout = family.expert_layout;
  // Qwen3-VL-MoE always normalises; Qwen3-MoE only when told to.
  const bool normalize = family.has_vision || text.optional_bool("norm_topk_prob", false);
  moe.normalization = normalize ? TopKNormalization::kSumToOne : TopKNormalization::kNone;
  return moe;
}

std::vector<FeedForwardKind> read_feed_forward(const JsonFields& text) {
  const int64_t num_layers = text.required_int("num_hidden_layers", 1, 4096);
  const int64_t sparse_step = text.optional_int("decoder_sparse_step", 1, 1, 4096);
  const std::vector<int64_t> dense = text.optional_ints("mlp_only_layers", 0, num_layers - 1);
  std::vector<FeedForwardKind> kinds;
  for (int64_t layer = 0; layer < num_layers; ++layer) {
    const bool is_dense = (layer + 1) % sparse_step != 0 || std::ranges::find(dense, layer) != dense.end();
    kinds.push_back(is_dense ? FeedForwardKind::kDense : FeedForwardKind::kMixtureOfExperts);
  }
  if (std::ranges::count(kinds, FeedForwardKind::kMixtureOfExperts) == 0) {
    text.fail("mlp_only_layers", "leaves no layer with experts; expected a Mixture-of-Experts model");
  }
  return kinds;
}

std::vector<int32_t> token_ids(const JsonFields& fields, const std::string& key, int64_t vocab_size) {
  if (!fields.has(key)) return {};
  std::vector<int64_t> ids;
  if (fields.raw(key).is_array()) {
    ids = fields.optional_ints(key, 0, vocab_size - 1);
  } else {
    ids.push_back(fields.required_int(key, 0, vocab_size - 1));
  }
  std::ranges::sort(ids);
  return {ids.begin(), ids.end()};
}

// generation_config.json knows all ids that end an answer; config.json often only one of them.
std::vector<int32_t> read_eos_token_ids(const std::filesystem::path& directory, const JsonFields& text, int64_t vocab_size) {
  const std::filesystem::path path = directory / "generation_config.json";
  if (std::filesystem::exists(path)) {
    const json generation = read_json_file(path);
    std::vector<int32_t> ids = token_ids(JsonFields(generation, path.string()), "eos_token_id", vocab_size);
    if (!ids.empty()) return ids;
  }
  return token_ids(text, "eos_token_id", vocab_size);
}

// The keys of the decoder; in text-only files they are at the top.
void read_text(const JsonFields& text, const Family& family, ModelConfig& config) {
  refuse_unsupported(text);
  refuse_sliding_window(text, family);
  config.vocab_size = text.required_int("vocab_size", 1, int64_t{1} << 24);
  config.hidden_size = text.required_int("hidden_size", 1, kMaxSize);
  config.max_position_embeddings = text.required_int("max_position_embeddings", 1, int64_t{1} << 24);
  config.rms_norm_epsilon = static_cast<float>(text.optional_number("rms_norm_eps", 1e-6, 0.0, 1.0));
  config.feed_forward = read_feed_forward(text);
  config.attention = read_attention(text, config);
  config.rotary = read_rotary(text, family, config.attention.kv.key_dim);
  config.moe = read_moe(text, family);
  if (config.num_moe_layers() < config.num_layers()) {
    config.dense_intermediate_size = text.required_int("intermediate_size", 1, kMaxSize);
  }
}

}  // namespace

int ModelConfig::num_moe_layers() const {
  return static_cast<int>(std::ranges::count(feed_forward, FeedForwardKind::kMixtureOfExperts));
}

bool ModelConfig::is_moe_layer(int64_t layer) const {
  return feed_forward.at(static_cast<size_t>(layer)) == FeedForwardKind::kMixtureOfExperts;
}

ModelConfig load_model_config(const std::filesystem::path& directory) {
  const std::filesystem::path path = directory / "config.json";
  const json document = read_json_file(path);
  const JsonFields root(document, path.string());
  const Family& family = find_family(root);
  check_architecture(root, family);
  refuse_unsupported(root);

  ModelConfig config;
  config.model_type = family.model_type;
  config.text_prefix = family.text_prefix;
  const std::optional<JsonFields> nested = family.has_vision ? root.optional_object("text_config") : std::nullopt;
  if (family.has_vision && !nested) root.fail("text_config", "is missing; expected an object");
  const JsonFields& text = nested ? *nested : root;
  if (nested) refuse_if(text, kQuantizationKey, text.has(kQuantizationKey));
  read_text(text, family, config);
  config.quantization = read_quantized_formats(root, {config.num_layers(), config.moe.num_experts});
  // The outer key decides: it is what transformers ties by. text_config carries one of its own that means nothing.
  config.tie_word_embeddings = root.optional_bool("tie_word_embeddings", false);
  if (family.has_vision) {
    config.vision_prefix = "model.visual.";
    config.vision = read_vision_config(root, {config.vocab_size, config.hidden_size, config.num_layers()});
  }
  config.eos_token_ids = read_eos_token_ids(directory, text, config.vocab_size);
  config.fingerprint = model_fingerprint(directory);
  return config;
}

}  // namespace skipper
