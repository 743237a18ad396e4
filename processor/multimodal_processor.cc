#include "processor/multimodal_processor.h"

#include <glog/logging.h>

#include <algorithm>
#include <string>
#include <utility>

#include "base/error.h"
#include "processor/image_decoder.h"

namespace skipper {
namespace {

// Calls `visit` with each part of the wanted kind, in the order of the prompt.
template <typename Visit>
void for_each_part(const std::vector<ChatMessage>& messages, ChatPart::Kind kind, const Visit& visit) {
  for (const ChatMessage& message : messages) {
    for (const ChatPart& part : message.parts) {
      if (part.kind == kind) visit(part);
    }
  }
}

int64_t count_images(const std::vector<ChatMessage>& messages) {
  int64_t num_images = 0;
  for_each_part(messages, ChatPart::Kind::kImage, [&](const ChatPart&) { ++num_images; });
  return num_images;
}

void require_equal(const std::filesystem::path& path, const char* key, int64_t value, int64_t expected) {
  if (value == expected) return;
  throw InvalidFile(path.string() + ": " + key + " is " + std::to_string(value) + ", but config.json's vision_config says " +
                    std::to_string(expected));
}

void refuse_images(const std::vector<ChatMessage>& messages) {
  for_each_part(messages, ChatPart::Kind::kImage, [](const ChatPart& part) {
    throw InvalidRequest(part.param + ": this model takes text only; leave out the image", part.param);
  });
}

}  // namespace

MultimodalProcessor::MultimodalProcessor(const std::filesystem::path& model_directory, const ModelConfig& config,
                                         const ImageLimits& limits)
    : tokenizer_(model_directory),
      chat_template_(model_directory),
      vision_(read_vision(model_directory, config)),
      limits_(limits) {
  check_token_ids(model_directory, config);
}

ProcessedPrompt MultimodalProcessor::process(const std::vector<ChatMessage>& messages) const {
  // Before the template, which may know no images and say so in words of its own.
  if (!vision_) refuse_images(messages);
  const std::string prompt = chat_template_.render(messages);
  const std::vector<int32_t> token_ids = tokenizer_.encode(prompt, SpecialTokens::kParse);
  // Before any image is decoded: refusing is cheap.
  if (vision_) check_placeholders(token_ids, messages);
  ProcessedPrompt processed;
  processed.images = make_patches(messages);
  processed.token_ids = expand_placeholders(token_ids, processed.images);
  return processed;
}

std::vector<TokenClass> MultimodalProcessor::token_classes(int64_t vocab_size) const {
  std::vector<TokenClass> classes(static_cast<size_t>(vocab_size), TokenClass::kText);
  for (const int32_t id : tokenizer_.special_ids()) {
    if (id < vocab_size) classes[id] = TokenClass::kProtected;
  }
  if (vision_) {
    for (const int32_t id : {vision_->image_token_id, vision_->video_token_id}) {
      if (id >= 0 && id < vocab_size) classes[id] = TokenClass::kVision;
    }
  }
  return classes;
}

std::optional<MultimodalProcessor::Vision> MultimodalProcessor::read_vision(const std::filesystem::path& model_directory,
                                                                            const ModelConfig& config) {
  if (!config.vision) return std::nullopt;
  const std::filesystem::path path = model_directory / "preprocessor_config.json";
  Vision vision{config.vision->image_token_id, config.vision->video_token_id, read_image_processor_config(path)};
  require_equal(path, "patch_size", vision.processor.patch_size, config.vision->patch_size);
  require_equal(path, "temporal_patch_size", vision.processor.temporal_patch_size, config.vision->temporal_patch_size);
  require_equal(path, "merge_size", vision.processor.merge_size, config.vision->spatial_merge_size);
  return vision;
}

void MultimodalProcessor::check_token_ids(const std::filesystem::path& model_directory, const ModelConfig& config) const {
  const std::string path = (model_directory / "tokenizer.json").string();
  if (tokenizer_.vocab_size() > config.vocab_size) {
    throw InvalidFile(path + ": has the token id " + std::to_string(tokenizer_.vocab_size() - 1) +
                      ", but config.json's vocab_size is " + std::to_string(config.vocab_size));
  }
  if (vision_ && tokenizer_.token_bytes(vision_->image_token_id).empty()) {
    throw InvalidFile(path + ": has no token " + std::to_string(vision_->image_token_id) +
                      ", config.json's image_token_id");
  }
}

bool MultimodalProcessor::is_placeholder(int32_t token_id) const {
  return vision_ && (token_id == vision_->image_token_id || token_id == vision_->video_token_id);
}

// A placeholder written into a text would take the features of some image and shift all later ones.
void MultimodalProcessor::check_placeholders(const std::vector<int32_t>& token_ids,
                                             const std::vector<ChatMessage>& messages) const {
  const int64_t num_placeholders =
      std::count_if(token_ids.begin(), token_ids.end(), [this](int32_t id) { return is_placeholder(id); });
  const ChatPart* culprit = find_part_with_placeholder(messages);
  if (num_placeholders == count_images(messages) && culprit == nullptr) return;
  const std::string param = culprit == nullptr ? "messages" : culprit->param;
  throw InvalidRequest(param + ": the prompt has " + std::to_string(num_placeholders) + " image placeholders for " +
                           std::to_string(count_images(messages)) + " images; text must not contain " +
                           std::string(tokenizer_.token_bytes(vision_->image_token_id)) + " or " +
                           std::string(tokenizer_.token_bytes(vision_->video_token_id)),
                       param);
}

const ChatPart* MultimodalProcessor::find_part_with_placeholder(const std::vector<ChatMessage>& messages) const {
  const ChatPart* found = nullptr;
  for_each_part(messages, ChatPart::Kind::kText, [&](const ChatPart& part) {
    for (const int32_t id : {vision_->image_token_id, vision_->video_token_id}) {
      const std::string_view placeholder = tokenizer_.token_bytes(id);
      const bool contained = !placeholder.empty() && part.text.find(placeholder) != std::string::npos;
      if (contained && found == nullptr) found = &part;
    }
  });
  return found;
}

std::vector<ImagePatches> MultimodalProcessor::make_patches(const std::vector<ChatMessage>& messages) const {
  std::vector<ImagePatches> images;
  for_each_part(messages, ChatPart::Kind::kImage, [&](const ChatPart& part) {
    images.push_back(make_image_patches(decode_image(part.image, limits_, part.param), vision_->processor, part.param));
  });
  return images;
}

std::vector<int32_t> MultimodalProcessor::expand_placeholders(const std::vector<int32_t>& token_ids,
                                                              const std::vector<ImagePatches>& images) const {
  std::vector<int32_t> expanded;
  size_t next_image = 0;
  for (const int32_t id : token_ids) {
    if (!is_placeholder(id)) {
      expanded.push_back(id);
      continue;
    }
    CHECK_LT(next_image, images.size());
    const int64_t merge = vision_->processor.merge_size;
    expanded.insert(expanded.end(), images[next_image++].num_patches() / (merge * merge), id);
  }
  return expanded;
}

}  // namespace skipper
