#include "model/vision_config.h"

#include <nlohmann/json.hpp>
#include <string>

namespace skipper {
namespace {

constexpr int64_t kMaxSize = 1 << 20;

// An integer, or a list that repeats one integer: `patch_size` comes as 16 or [16, 16].
int64_t repeated_int(const JsonFields& fields, const std::string& key, int64_t fallback) {
  if (!fields.raw(key).is_array()) return fields.optional_int(key, fallback, 1, 1024);
  const std::vector<int64_t> values = fields.optional_ints(key, 1, 1024);
  for (const int64_t value : values) {
    if (value != values[0]) fields.fail(key, fields.raw(key).dump() + " is not supported; expected equal numbers");
  }
  if (values.empty()) fields.fail(key, "is an empty list; expected an integer");
  return values[0];
}

GeluForm read_activation(const JsonFields& fields) {
  const std::string name = fields.optional_string("hidden_act", "gelu_pytorch_tanh");
  if (name == "gelu_pytorch_tanh") return GeluForm::kTanh;
  if (name == "gelu") return GeluForm::kErf;
  fields.fail("hidden_act", "'" + name + "' is not supported; expected gelu_pytorch_tanh or gelu");
}

int64_t read_position_grid(const JsonFields& fields) {
  const int64_t count = fields.optional_int("num_position_embeddings", 2304, 1, kMaxSize);
  int64_t side = 1;
  while (side * side < count) ++side;
  if (side * side != count) {
    fields.fail("num_position_embeddings", std::to_string(count) + " is not supported; expected a square number");
  }
  return side;
}

double read_rope_theta(const JsonFields& fields) {
  const std::optional<JsonFields> rope = fields.optional_object("rope_parameters");
  if (!rope) return 10000.0;
  const std::string type = rope->optional_string("rope_type", "axial");
  if (type != "axial") rope->fail("rope_type", "'" + type + "' is not supported; expected axial");
  return rope->optional_number("rope_theta", 10000.0, 1.0, 1e12);
}

std::vector<int64_t> read_deepstack(const JsonFields& fields, const VisionConfig& config, int64_t num_layers) {
  const std::string key = "deepstack_visual_indexes";
  std::vector<int64_t> blocks = fields.optional_ints(key, 0, config.depth - 1);
  if (!fields.has(key)) fields.fail(key, "is missing; expected a list of block indices");
  for (size_t i = 1; i < blocks.size(); ++i) {
    if (blocks[i] <= blocks[i - 1]) fields.fail(key, fields.raw(key).dump() + " is not supported; expected ascending indices");
  }
  // The last decoder layer leaves out tokens whose logits nobody reads, so no features are added after it.
  if (static_cast<int64_t>(blocks.size()) >= num_layers) {
    fields.fail(key, std::to_string(blocks.size()) + " levels need more than " + std::to_string(num_layers) +
                         " decoder layers");
  }
  return blocks;
}

void read_sizes(const JsonFields& fields, VisionConfig& config) {
  config.depth = fields.optional_int("depth", 27, 1, 1024);
  config.hidden_size = fields.optional_int("hidden_size", 1152, 1, kMaxSize);
  config.intermediate_size = fields.optional_int("intermediate_size", 4304, 1, kMaxSize);
  config.num_heads = fields.optional_int("num_heads", 16, 1, 1024);
  config.in_channels = fields.optional_int("in_channels", 3, 1, 16);
  config.patch_size = repeated_int(fields, "patch_size", 16);
  config.temporal_patch_size = repeated_int(fields, "temporal_patch_size", 2);
  config.spatial_merge_size = fields.optional_int("spatial_merge_size", 2, 1, 16);
  config.out_hidden_size = fields.optional_int("out_hidden_size", 3584, 1, kMaxSize);
  config.position_grid = read_position_grid(fields);
}

void check_sizes(const JsonFields& fields, const VisionConfig& config, const VisionRequirements& text) {
  if (config.hidden_size % config.num_heads != 0 || config.head_dim() % 4 != 0) {
    fields.fail("num_heads", std::to_string(config.num_heads) + " heads do not divide hidden_size " +
                                 std::to_string(config.hidden_size) + " into heads of a multiple of 4");
  }
  if (config.out_hidden_size != text.hidden_size) {
    fields.fail("out_hidden_size", std::to_string(config.out_hidden_size) + " differs from the decoder's hidden_size " +
                                       std::to_string(text.hidden_size));
  }
}

int32_t read_token_id(const JsonFields& root, const std::string& key, const VisionRequirements& text) {
  return static_cast<int32_t>(root.required_int(key, 0, text.vocab_size - 1));
}

}  // namespace

VisionConfig read_vision_config(const JsonFields& root, const VisionRequirements& text) {
  const JsonFields fields = root.required_object("vision_config");
  VisionConfig config;
  read_sizes(fields, config);
  check_sizes(fields, config, text);
  config.activation = read_activation(fields);
  config.rope_theta = read_rope_theta(fields);
  config.deepstack_blocks = read_deepstack(fields, config, text.num_layers);
  config.image_token_id = read_token_id(root, "image_token_id", text);
  config.video_token_id = read_token_id(root, "video_token_id", text);
  config.vision_start_token_id = read_token_id(root, "vision_start_token_id", text);
  config.vision_end_token_id = read_token_id(root, "vision_end_token_id", text);
  return config;
}

}  // namespace skipper
