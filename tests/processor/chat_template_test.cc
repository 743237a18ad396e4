#include "processor/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "jinja/template.h"
#include "jinja/template_error.h"
#include "jinja/value_json.h"

namespace skipper {
namespace {

using json = nlohmann::ordered_json;
using ::testing::HasSubstr;
namespace fs = std::filesystem;

// A model directory with nothing but what a test writes.
class ModelDirectory {
 public:
  ModelDirectory() {
    std::string pattern = (fs::temp_directory_path() / "chat_template_XXXXXX").string();
    if (mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("no temporary directory");
    path_ = pattern;
  }
  ~ModelDirectory() { fs::remove_all(path_); }

  void write(const std::string& name, const std::string& content) const { std::ofstream(path_ / name) << content; }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

ChatMessage message(const std::string& role, const std::string& text) {
  return {role, {{ChatPart::Kind::kText, text, {}, ""}}};
}

ChatPart image() { return {ChatPart::Kind::kImage, "", {}, ""}; }

std::string render_with(const std::string& source, const std::vector<ChatMessage>& messages) {
  const ModelDirectory model;
  model.write("chat_template.jinja", source);
  return ChatTemplate(model.path()).render(messages);
}

std::string load_failure(const ModelDirectory& model) {
  try {
    const ChatTemplate loaded(model.path());
    return "loaded";
  } catch (const InvalidFile& error) {
    return error.what();
  }
}

// ---- Prompts as transformers renders them

ChatPart part_of(const json& part) {
  return part.at("type") == "image" ? image() : ChatPart{ChatPart::Kind::kText, part.at("text"), {}, ""};
}

std::vector<ChatMessage> messages_of(const json& chat) {
  std::vector<ChatMessage> messages;
  for (const json& entry : chat) {
    ChatMessage one{entry.at("role"), {}};
    if (entry.at("content").is_string()) {
      one = message(entry.at("role"), entry.at("content"));
    } else {
      for (const json& part : entry.at("content")) one.parts.push_back(part_of(part));
    }
    messages.push_back(std::move(one));
  }
  return messages;
}

// Requests cannot carry what a model thought in earlier turns.
template <typename Json>
bool has_reasoning(const Json& chat) {
  return std::any_of(chat.begin(), chat.end(), [](const Json& one) { return one.contains("reasoning_content"); });
}

void check_prompt(const ChatTemplate& chat_template, const json& chat, const json& prompt) {
  const auto opening = prompt.at("add_generation_prompt") ? AnswerOpening::kAppended : AnswerOpening::kOmitted;
  SCOPED_TRACE(prompt.at("template").get<std::string>() + ": " + chat.dump().substr(0, 300));
  try {
    const std::string rendered = chat_template.render(messages_of(chat), opening);
    ASSERT_TRUE(prompt.contains("expected")) << "Python refuses this, ours rendered: " << rendered;
    EXPECT_EQ(rendered, prompt.at("expected").get<std::string>());
  } catch (const InvalidRequest& error) {
    EXPECT_EQ(error.param(), "messages");
    ASSERT_FALSE(prompt.contains("expected")) << error.what();
    if (prompt.contains("raised")) {
      EXPECT_EQ(error.what(), prompt.at("raised").get<std::string>());
    }
  }
}

// SKIPPER_CHAT_PROMPTS names another file of tools/make_chat_template_fixtures.py, made from templates that are not ours.
json read_prompts() {
  const char* other = std::getenv("SKIPPER_CHAT_PROMPTS");
  std::ifstream file(other ? other : SKIPPER_SOURCE_DIR "/tests/processor/fixtures/chat_prompts.json");
  return json::parse(file);
}

TEST(ChatTemplate, RendersTheSamePromptsAsTransformers) {
  const json fixture = read_prompts();
  size_t num_prompts = 0;
  for (const auto& [name, source] : fixture.at("templates").items()) {
    const ModelDirectory model;
    model.write("chat_template.jinja", source);
    model.write("tokenizer_config.json", fixture.at("special_tokens").dump());
    const ChatTemplate chat_template(model.path());
    for (const json& prompt : fixture.at("prompts")) {
      const json& chat = fixture.at("chats").at(prompt.at("chat").get<size_t>());
      if (prompt.at("template") != name || has_reasoning(chat)) continue;
      check_prompt(chat_template, chat, prompt);
      ++num_prompts;
    }
  }
  EXPECT_GE(num_prompts, 60 * fixture.at("templates").size());
}

// Chats as clients of transformers write them: lists of texts too, and what the model thought in earlier turns.
TEST(ChatTemplate, RendersRawChatsAsTransformersWithTheSameInterpreter) {
  const json fixture = read_prompts();
  size_t num_with_reasoning = 0;
  for (const auto& prompt : fixture.at("prompts")) {
    const auto& chat = fixture.at("chats").at(prompt.at("chat").get<size_t>());
    const std::string name = prompt.at("template");
    SCOPED_TRACE(name + ": " + chat.dump().substr(0, 300));
    jinja::Map context;
    for (const auto& [token, text] : fixture.at("special_tokens").items()) context.set(token, jinja::value_from_json(text));
    context.set("messages", jinja::value_from_json(chat));
    context.set("tools", jinja::Value());
    context.set("documents", jinja::Value());
    context.set("add_generation_prompt", jinja::value_from_json(prompt.at("add_generation_prompt")));
    const jinja::Template chat_template(fixture.at("templates").at(name).get<std::string>());
    if (prompt.contains("expected")) {
      EXPECT_EQ(chat_template.render(context), prompt.at("expected").get<std::string>());
    } else {
      EXPECT_THROW(chat_template.render(context), jinja::TemplateError);
    }
    num_with_reasoning += has_reasoning(chat);
  }
  EXPECT_GE(num_with_reasoning, 4 * fixture.at("templates").size());
}

TEST(ChatTemplate, ReadsTheDemoModel) {
  const ChatTemplate demo(fs::path(SKIPPER_SOURCE_DIR) / "models/demo");
  const ChatMessage question{"user", {image(), {ChatPart::Kind::kText, "What is it?", {}, ""}}};
  EXPECT_EQ(demo.render({question}),
            "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>What is it?<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(demo.render({}, AnswerOpening::kOmitted), "");
}

// ---- Where templates come from

TEST(ChatTemplate, PrefersTheJinjaFileThenTheJsonFileThenTheTokenizerConfig) {
  const ModelDirectory model;
  model.write("tokenizer_config.json", R"({"chat_template": "tokenizer"})");
  EXPECT_EQ(ChatTemplate(model.path()).render({}), "tokenizer");
  model.write("chat_template.json", R"({"chat_template": "json"})");
  EXPECT_EQ(ChatTemplate(model.path()).render({}), "json");
  model.write("chat_template.jinja", "jinja");
  EXPECT_EQ(ChatTemplate(model.path()).render({}), "jinja");
}

TEST(ChatTemplate, TakesTheDefaultOfSeveralTemplates) {
  const ModelDirectory model;
  model.write("tokenizer_config.json",
              R"({"chat_template": [{"name": "rag", "template": "a"}, {"name": "default", "template": "b"}]})");
  EXPECT_EQ(ChatTemplate(model.path()).render({}), "b");
}

TEST(ChatTemplate, SaysHowToGetAMissingTemplate) {
  const ModelDirectory model;
  EXPECT_THAT(load_failure(model), HasSubstr("has no chat template; add chat_template.jinja"));
  model.write("tokenizer_config.json", R"({"chat_template": null})");
  EXPECT_THAT(load_failure(model), HasSubstr("has no chat template"));
}

TEST(ChatTemplate, RefusesTemplatesItCannotReadNamingFileAndLine) {
  const ModelDirectory model;
  model.write("tokenizer_config.json", R"({"chat_template": [{"name": "rag", "template": "a"}]})");
  EXPECT_THAT(load_failure(model), HasSubstr("tokenizer_config.json: chat_template: expected a text or a list"));
  model.write("tokenizer_config.json", R"({"chat_template": 5})");
  EXPECT_THAT(load_failure(model), HasSubstr("chat_template: expected a text"));
  model.write("chat_template.json", "{");
  EXPECT_THAT(load_failure(model), HasSubstr("chat_template.json: not valid JSON"));
  model.write("chat_template.jinja", "a\n{% include 'b' %}");
  EXPECT_THAT(load_failure(model), HasSubstr("chat_template.jinja: line 2: the tag 'include' is not supported"));
  model.write("chat_template.jinja", "a\xff");
  EXPECT_THAT(load_failure(model), HasSubstr("not UTF-8 at byte 1"));
  model.write("chat_template.jinja", std::string((1 << 20) + 1, 'x'));
  EXPECT_THAT(load_failure(model), HasSubstr("more than the limit of 1048576"));
}

// ---- What templates see

TEST(ChatTemplate, GivesSpecialTokensWrittenAsTextOrObject) {
  const ModelDirectory model;
  model.write("chat_template.jinja", "{{ bos_token }}|{{ eos_token }}|{{ pad_token is defined }}|{{ unk_token is defined }}");
  model.write("tokenizer_config.json", R"({"bos_token": "<s>", "eos_token": {"content": "</s>"}, "pad_token": null})");
  EXPECT_EQ(ChatTemplate(model.path()).render({}), "<s>|</s>|False|False");
}

TEST(ChatTemplate, GivesToolsAsNoneAndNoFurtherVariables) {
  EXPECT_EQ(render_with("{{ tools is none }}{{ documents is none }}{{ enable_thinking is defined }}", {}), "TrueTrueFalse");
}

TEST(ChatTemplate, GivesTextsAsOneStringAndImagesInAList) {
  const std::string source = "{% for m in messages %}{{ m.content is string }}{{ m.content|length }} {% endfor %}";
  const ChatMessage texts{"user", {{ChatPart::Kind::kText, "ab", {}, ""}, {ChatPart::Kind::kText, "c", {}, ""}}};
  EXPECT_EQ(render_with(source, {message("user", "ab"), texts, {"user", {image()}}, {"user", {}}}),
            "True2 True3 False1 True0 ");
}

TEST(ChatTemplate, NeverRendersWhatUsersWriteAsATemplate) {
  EXPECT_EQ(render_with("{{ messages[0].content }}", {message("user", "{{ 1 + 1 }}{% raw %}")}), "{{ 1 + 1 }}{% raw %}");
}

TEST(ChatTemplate, PassesOnTheWordsOfRaiseException) {
  try {
    render_with("{{ raise_exception('Roles must alternate') }}", {});
    FAIL() << "the template refuses every chat";
  } catch (const InvalidRequest& error) {
    EXPECT_STREQ(error.what(), "Roles must alternate");
    EXPECT_EQ(error.param(), "messages");
  }
}

TEST(ChatTemplate, RefusesChatsItsTemplateCannotRender) {
  try {
    render_with("\n{{ messages[0].content + 'x' }}", {});
    FAIL() << "there is no first message";
  } catch (const InvalidRequest& error) {
    EXPECT_THAT(error.what(), HasSubstr("chat template cannot render them: line 2:"));
    EXPECT_EQ(error.param(), "messages");
  }
}

}  // namespace
}  // namespace skipper
