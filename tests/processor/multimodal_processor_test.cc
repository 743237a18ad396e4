#include "processor/multimodal_processor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace skipper {
namespace {

using nlohmann::json;
using testing::HasSubstr;

const std::filesystem::path kRoot = SKIPPER_SOURCE_DIR;
const std::filesystem::path kDemo = kRoot / "models/demo";

constexpr int32_t kImagePad = 4094;
constexpr int32_t kVideoPad = 4095;

std::vector<uint8_t> read_bytes(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file) << path;
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// What of config.json the processor looks at.
ModelConfig demo_config() {
  ModelConfig config;
  config.vocab_size = 4096;
  config.vision.emplace();
  config.vision->patch_size = 16;
  config.vision->temporal_patch_size = 2;
  config.vision->spatial_merge_size = 2;
  config.vision->image_token_id = kImagePad;
  config.vision->video_token_id = kVideoPad;
  return config;
}

ModelConfig text_only_config() {
  ModelConfig config = demo_config();
  config.vision.reset();
  return config;
}

ChatPart text_part(const std::string& text, const std::string& param) {
  return {.kind = ChatPart::Kind::kText, .text = text, .image = {}, .param = param};
}

ChatPart image_part(const std::vector<uint8_t>& file, const std::string& param) {
  return {.kind = ChatPart::Kind::kImage, .text = "", .image = file, .param = param};
}

std::vector<ChatMessage> parse_messages(const json& list) {
  std::vector<ChatMessage> messages;
  for (const json& item : list) {
    ChatMessage message{item["role"], {}};
    for (const json& part : item["content"]) {
      const std::string param = "messages[" + std::to_string(messages.size()) + "]";
      const bool is_text = part["type"] == "text";
      message.parts.push_back(is_text ? text_part(part["text"], param)
                                      : image_part(read_bytes(kRoot / part["image"].get<std::string>()), param));
    }
    messages.push_back(std::move(message));
  }
  return messages;
}

class DemoProcessor : public testing::Test {
 protected:
  // The refusal of one user message with these parts; its param goes to `param_`.
  std::string refusal(const MultimodalProcessor& processor, const std::vector<ChatPart>& parts) {
    try {
      processor.process({{"user", parts}});
    } catch (const InvalidRequest& e) {
      param_ = e.param();
      return e.what();
    }
    return "accepted";
  }

  MultimodalProcessor processor_{kDemo, demo_config(), {}};
  std::vector<uint8_t> image_ = read_bytes(kDemo / "calibration/images/emoji_000.jpg");
  std::string param_;
};

TEST_F(DemoProcessor, GivesThePromptsOfTransformersForChatsWithImages) {
  std::ifstream file(kRoot / "tests/processor/fixtures/chat/cases.json");
  const json cases = json::parse(file);
  ASSERT_GE(cases.size(), 10u);
  for (const json& test_case : cases) {
    const ProcessedPrompt prompt = processor_.process(parse_messages(test_case["messages"]));
    EXPECT_EQ(prompt.token_ids, test_case["ids"].get<std::vector<int32_t>>()) << test_case["messages"];
    ASSERT_EQ(prompt.images.size(), test_case["grids"].size());
    for (size_t i = 0; i < prompt.images.size(); ++i) {
      const ImagePatches& image = prompt.images[i];
      EXPECT_EQ((std::vector<int64_t>{image.grid_t, image.grid_h, image.grid_w}),
                test_case["grids"][i].get<std::vector<int64_t>>());
      EXPECT_EQ(static_cast<int64_t>(image.pixels.size()), image.num_patches() * 3 * 2 * 16 * 16);
    }
  }
}

TEST_F(DemoProcessor, RefusesAPlaceholderInTextByNameWithOrWithoutImages) {
  EXPECT_THAT(refusal(processor_, {image_part(image_, "a"), text_part("x <|image_pad|>", "messages[0].content[1]")}),
              HasSubstr("messages[0].content[1]: the prompt has 2 image placeholders for 1 images"));
  EXPECT_EQ(param_, "messages[0].content[1]");
  EXPECT_THAT(refusal(processor_, {text_part("<|image_pad|>", "messages[0].content")}), HasSubstr("for 0 images"));
  EXPECT_EQ(param_, "messages[0].content");
  EXPECT_THAT(refusal(processor_, {text_part("<|video_pad|>", "messages[0].content")}), HasSubstr("for 0 images"));
}

TEST_F(DemoProcessor, RefusesAPlaceholderPutTogetherFromTwoTexts) {
  EXPECT_THAT(refusal(processor_, {text_part("<|image", "a"), text_part("_pad|>", "b")}), HasSubstr("1 image placeholders"));
  EXPECT_EQ(param_, "messages");
}

TEST_F(DemoProcessor, NamesAnImageThatCannotBeDecoded) {
  EXPECT_NE(refusal(processor_, {image_part(image_, "messages[0].content[0]"), image_part({1, 2, 3}, "messages[0].content[1]")}),
            "accepted");
  EXPECT_EQ(param_, "messages[0].content[1]");
}

TEST_F(DemoProcessor, NamesAnImageForATextOnlyModel) {
  const MultimodalProcessor text_only(kDemo, text_only_config(), {});
  EXPECT_THAT(refusal(text_only, {text_part("hi", "a"), image_part(image_, "messages[0].content[1]")}),
              HasSubstr("messages[0].content[1]: this model takes text only"));
  EXPECT_EQ(param_, "messages[0].content[1]");
  EXPECT_EQ(text_only.process({{"user", {text_part("Hello!", "a")}}}).token_ids,
            processor_.process({{"user", {text_part("Hello!", "a")}}}).token_ids);
}

TEST_F(DemoProcessor, ClassifiesPlaceholdersAsVisionAndOtherSpecialTokensAsProtected) {
  const std::vector<TokenClass> classes = processor_.token_classes(4100);
  ASSERT_EQ(classes.size(), 4100u);
  for (int32_t id = 0; id < 4100; ++id) {
    TokenClass expected = TokenClass::kText;
    if (id >= 4082 && id < kImagePad) expected = TokenClass::kProtected;
    if (id == kImagePad || id == kVideoPad) expected = TokenClass::kVision;
    EXPECT_EQ(classes[id], expected) << id;
  }
  const MultimodalProcessor text_only(kDemo, text_only_config(), {});
  EXPECT_EQ(text_only.token_classes(4096)[kImagePad], TokenClass::kProtected);
}

TEST_F(DemoProcessor, NamesContradictionsBetweenTheFilesOfACheckpoint) {
  const auto refusal_of = [](const ModelConfig& config) -> std::string {
    try {
      MultimodalProcessor(kDemo, config, {});
    } catch (const InvalidFile& e) {
      return e.what();
    }
    return "accepted";
  };
  ModelConfig config = demo_config();
  config.vocab_size = 4095;
  EXPECT_THAT(refusal_of(config), HasSubstr("tokenizer.json: has the token id 4095, but config.json's vocab_size is 4095"));
  config = demo_config();
  config.vision->patch_size = 14;
  EXPECT_THAT(refusal_of(config), HasSubstr("preprocessor_config.json: patch_size is 16"));
  config = demo_config();
  config.vocab_size = 6000;
  config.vision->image_token_id = 5000;
  EXPECT_THAT(refusal_of(config), HasSubstr("tokenizer.json: has no token 5000, config.json's image_token_id"));
  EXPECT_EQ(refusal_of(demo_config()), "accepted");
}

}  // namespace
}  // namespace skipper
