#include "model/model_config.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "tests/model/edited_checkpoint.h"
#include "tests/model/prompt_fixture.h"

namespace skipper {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

TEST(ModelConfig, ReadsTheVisionFamily) {
  const ModelConfig config = load_model_config(demo_model());
  EXPECT_EQ(config.model_type, "qwen3_vl_moe");
  EXPECT_EQ(config.vocab_size, 4096);
  EXPECT_EQ(config.hidden_size, 256);
  EXPECT_EQ(config.num_layers(), 6);
  EXPECT_EQ(config.num_moe_layers(), 6);
  EXPECT_EQ(config.max_position_embeddings, 4096);
  EXPECT_TRUE(config.tie_word_embeddings);
  EXPECT_EQ(config.attention.num_heads, 8);
  EXPECT_EQ(config.attention.kv.kv_heads, 2);
  EXPECT_EQ(config.attention.kv.key_dim, 64);
  EXPECT_EQ(config.moe.num_experts, 32);
  EXPECT_EQ(config.moe.top_k, 4);
  EXPECT_EQ(config.moe.intermediate_size, 96);
  EXPECT_EQ(config.moe.normalization, TopKNormalization::kSumToOne);
  EXPECT_EQ(config.moe.layout, ExpertLayout::kFusedTransposed);
  EXPECT_THAT(config.rotary.mrope_sections.value(), ElementsAre(12, 10, 10));
  EXPECT_THAT(config.eos_token_ids, ElementsAre(4082, 4084));
  ASSERT_TRUE(config.vision.has_value());
  EXPECT_EQ(config.vision->position_grid, 14);
  EXPECT_EQ(config.vision->image_token_id, 4094);
  EXPECT_THAT(config.vision->deepstack_blocks, ElementsAre(1, 3));
  EXPECT_EQ(config.fingerprint.size(), 16u);
}

TEST(ModelConfig, ReadsTheTextFamily) {
  const ModelConfig config = load_model_config(model_fixture("tiny_qwen3_moe"));
  EXPECT_EQ(config.model_type, "qwen3_moe");
  EXPECT_FALSE(config.vision.has_value());
  EXPECT_FALSE(config.tie_word_embeddings);
  EXPECT_TRUE(config.attention.has_bias);
  EXPECT_EQ(config.num_moe_layers(), 2);
  EXPECT_FALSE(config.is_moe_layer(1));
  EXPECT_EQ(config.dense_intermediate_size, 48);
  EXPECT_EQ(config.moe.normalization, TopKNormalization::kNone);
  EXPECT_EQ(config.moe.layout, ExpertLayout::kPerExpert);
  EXPECT_FALSE(config.rotary.mrope_sections.has_value());
  EXPECT_THAT(config.eos_token_ids, ElementsAre(1, 2));
}

TEST(ModelConfig, ReadsTheKeysOfOlderTransformers) {
  EditedCheckpoint checkpoint(model_fixture("tiny_qwen3_moe"));
  checkpoint.edit("config.json", [](json& config) {
    config.erase("rope_parameters");
    config.erase("num_local_experts");
    config.update({{"num_experts", 7}, {"rope_theta", 5e6}, {"rope_scaling", nullptr}, {"norm_topk_prob", true}});
  });
  const ModelConfig config = load_model_config(checkpoint.path());
  EXPECT_EQ(config.moe.num_experts, 7);
  EXPECT_EQ(config.rotary.theta, 5e6);
  EXPECT_EQ(config.moe.normalization, TopKNormalization::kSumToOne);
}

TEST(ModelConfig, TakesEndTokensFromConfigJsonWhenThereIsNoGenerationConfig) {
  EditedCheckpoint checkpoint(demo_model());
  checkpoint.remove("generation_config.json");
  EXPECT_THAT(load_model_config(checkpoint.path()).eos_token_ids, ElementsAre(4084));
}

TEST(ModelConfig, MakesEveryOtherLayerDenseWithAStepOfTwo) {
  EditedCheckpoint checkpoint(model_fixture("tiny_qwen3_moe"));
  checkpoint.edit("config.json", [](json& config) { config.update({{"decoder_sparse_step", 2}, {"mlp_only_layers", {}}}); });
  const ModelConfig config = load_model_config(checkpoint.path());
  EXPECT_FALSE(config.is_moe_layer(0));
  EXPECT_TRUE(config.is_moe_layer(1));
  EXPECT_FALSE(config.is_moe_layer(2));
}

TEST(ModelConfig, IgnoresTheWindowThatIsSwitchedOff) {
  EditedCheckpoint checkpoint(model_fixture("tiny_qwen3_moe"));
  checkpoint.edit("config.json", [](json& config) { config["sliding_window"] = 4096; });
  EXPECT_NO_THROW(load_model_config(checkpoint.path()));
}

TEST(ModelConfig, FingerprintFollowsConfigAndWeightIndex) {
  EditedCheckpoint checkpoint(demo_model());
  const std::string original = load_model_config(demo_model()).fingerprint;
  EXPECT_EQ(load_model_config(checkpoint.path()).fingerprint, original);
  checkpoint.edit("config.json", [](json& config) { config["use_cache"] = false; });
  const std::string edited = load_model_config(checkpoint.path()).fingerprint;
  EXPECT_NE(edited, original);
  checkpoint.edit("model.safetensors.index.json", [](json& index) { index["metadata"]["total_size"] = 1; });
  EXPECT_NE(load_model_config(checkpoint.path()).fingerprint, edited);
}

// A value that is refused, and what the message must name.
struct Refusal {
  const char* name;
  const char* model;  // "demo" or "tiny"
  const char* path;   // JSON pointer
  json value;
  std::vector<std::string> named;
};

class ModelConfigRefusal : public testing::TestWithParam<Refusal> {};

TEST_P(ModelConfigRefusal, NamesKeyAndValue) {
  const Refusal& refusal = GetParam();
  EditedCheckpoint checkpoint(refusal.model == std::string("demo") ? demo_model() : model_fixture("tiny_qwen3_moe"));
  checkpoint.edit("config.json", [&](json& config) { config[json::json_pointer(refusal.path)] = refusal.value; });
  for (const std::string& name : refusal.named) {
    EXPECT_THAT([&] { load_model_config(checkpoint.path()); },
                ThrowsMessage<InvalidFile>(AllOf(HasSubstr("config.json"), HasSubstr(name))));
  }
}

std::vector<Refusal> refusals() {
  const json windows = {"sliding_attention", "full_attention", "full_attention"};
  const json yarn = {{"rope_type", "yarn"}, {"factor", 4.0}};
  return {
      {"UnknownModelType", "tiny", "/model_type", "mixtral", {"model_type", "'mixtral'", "qwen3_moe"}},
      {"MissingModelType", "tiny", "/model_type", nullptr, {"model_type", "missing"}},
      {"ForeignArchitecture", "tiny", "/architectures", {"Qwen3MoeForTokenClassification"}, {"architectures", "ForToken"}},
      {"Quantisation", "tiny", "/quantization_config", {{"quant_method", "gptq"}}, {"quantization_config", "gptq"}},
      {"HiddenAct", "tiny", "/hidden_act", "relu", {"hidden_act", "relu"}},
      {"NestedHiddenAct", "demo", "/text_config/hidden_act", "relu", {"text_config: hidden_act"}},
      {"Yarn", "tiny", "/rope_scaling", yarn, {"rope_scaling: rope_type", "'yarn'"}},
      {"YarnInNewStyle", "tiny", "/rope_parameters/rope_type", "yarn", {"rope_parameters: rope_type"}},
      {"PartialRotary", "tiny", "/partial_rotary_factor", 0.5, {"partial_rotary_factor"}},
      {"LayerTypes", "tiny", "/layer_types", windows, {"layer_types", "sliding_attention"}},
      {"SharedExperts", "tiny", "/shared_expert_intermediate_size", 64, {"shared_expert_intermediate_size"}},
      {"TopKAboveExperts", "tiny", "/num_experts_per_tok", 8, {"num_experts_per_tok", "8", "1 to 7"}},
      {"NoExperts", "tiny", "/num_local_experts", 0, {"num_local_experts"}},
      {"ContradictingExperts", "demo", "/text_config/num_experts", 31, {"num_experts"}},
      {"KvHeads", "tiny", "/num_key_value_heads", 3, {"num_key_value_heads", "3"}},
      {"OddHeadDim", "tiny", "/head_dim", 15, {"head_dim", "15"}},
      {"NegativeLayers", "tiny", "/num_hidden_layers", -1, {"num_hidden_layers", "-1"}},
      {"TextAsNumber", "tiny", "/hidden_size", "32", {"hidden_size"}},
      {"DenseLayerOutOfRange", "tiny", "/mlp_only_layers", {3}, {"mlp_only_layers", "3"}},
      {"OnlyDenseLayers", "tiny", "/mlp_only_layers", {0, 1, 2}, {"mlp_only_layers"}},
      {"NoTextConfig", "demo", "/text_config", nullptr, {"text_config"}},
      {"NoVisionConfig", "demo", "/vision_config", nullptr, {"vision_config"}},
      {"MropeSections", "demo", "/text_config/rope_scaling/mrope_section", {12, 10, 9}, {"mrope_section"}},
      {"ContiguousMrope", "demo", "/text_config/rope_scaling/mrope_interleaved", false, {"mrope_interleaved"}},
      {"VisionAct", "demo", "/vision_config/hidden_act", "quick_gelu", {"vision_config: hidden_act", "quick_gelu"}},
      {"VisionRope", "demo", "/vision_config/rope_parameters/rope_type", "linear", {"rope_type", "linear"}},
      {"PositionGrid", "demo", "/vision_config/num_position_embeddings", 200, {"num_position_embeddings", "200"}},
      {"PatchSizes", "demo", "/vision_config/patch_size", {16, 14}, {"patch_size", "[16,14]"}},
      {"VisionWidth", "demo", "/vision_config/out_hidden_size", 128, {"out_hidden_size", "128", "256"}},
      {"VisionHeads", "demo", "/vision_config/num_heads", 5, {"num_heads", "5"}},
      {"DeepstackOrder", "demo", "/vision_config/deepstack_visual_indexes", {3, 1}, {"deepstack_visual_indexes"}},
      {"DeepstackDepth", "demo", "/vision_config/deepstack_visual_indexes", {0, 1, 2, 3, 4, 5}, {"deepstack_visual_indexes"}},
      {"ImageToken", "demo", "/image_token_id", 4096, {"image_token_id", "4096"}},
  };
}

INSTANTIATE_TEST_SUITE_P(, ModelConfigRefusal, testing::ValuesIn(refusals()),
                         [](const testing::TestParamInfo<Refusal>& info) { return info.param.name; });

TEST(ModelConfig, RefusesASlidingWindowThatIsOn) {
  EditedCheckpoint checkpoint(model_fixture("tiny_qwen3_moe"));
  checkpoint.edit("config.json", [](json& config) { config.update({{"sliding_window", 64}, {"use_sliding_window", true}}); });
  EXPECT_THAT([&] { load_model_config(checkpoint.path()); }, ThrowsMessage<InvalidFile>(HasSubstr("sliding_window: 64")));
}

TEST(ModelConfig, NamesTheFileThatIsMissing) {
  EXPECT_THAT([] { load_model_config("/nowhere/model"); }, ThrowsMessage<InvalidFile>(HasSubstr("/nowhere/model/config.json")));
  EditedCheckpoint checkpoint(model_fixture("tiny_qwen3_moe"));
  checkpoint.remove("model.safetensors");
  EXPECT_THAT([&] { load_model_config(checkpoint.path()); }, ThrowsMessage<InvalidFile>(HasSubstr("model.safetensors")));
}

}  // namespace
}  // namespace skipper
