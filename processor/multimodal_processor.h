// From chat messages to token ids with image placeholders and the images' patches.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <vector>

#include "cluster/token_class.h"
#include "model/model_config.h"
#include "processor/bpe_tokenizer.h"
#include "processor/chat_message.h"
#include "processor/chat_template.h"
#include "processor/image_limits.h"
#include "processor/image_processor.h"
#include "processor/processed_prompt.h"

namespace skipper {

// Does what transformers' Qwen3VLProcessor.apply_chat_template does. Immutable and thread-safe.
class MultimodalProcessor {
 public:
  // Reads the tokenizer, the chat template and, for models with a vision tower, preprocessor_config.json. Throws InvalidFile,
  // also where these files contradict `config`.
  MultimodalProcessor(const std::filesystem::path& model_directory, const ModelConfig& config, const ImageLimits& limits);

  // Renders the chat with the opening of the assistant's answer, tokenizes it and puts one placeholder for each token of
  // each image. Special tokens in the text of users are special tokens, as in transformers. Throws InvalidRequest naming the
  // part: an image that cannot be decoded or that the model cannot take, text that holds an image placeholder.
  ProcessedPrompt process(const std::vector<ChatMessage>& messages) const;

  // The class of each of `vocab_size` ids: image and video placeholders are vision, all other special tokens protected.
  std::vector<TokenClass> token_classes(int64_t vocab_size) const;

  const BpeTokenizer& tokenizer() const { return tokenizer_; }

 private:
  // What a model with a vision tower has besides text.
  struct Vision {
    int32_t image_token_id = -1;
    int32_t video_token_id = -1;
    ImageProcessorConfig processor;
  };

  static std::optional<Vision> read_vision(const std::filesystem::path& model_directory, const ModelConfig& config);
  void check_token_ids(const std::filesystem::path& model_directory, const ModelConfig& config) const;
  bool is_placeholder(int32_t token_id) const;
  void check_placeholders(const std::vector<int32_t>& token_ids, const std::vector<ChatMessage>& messages) const;
  const ChatPart* find_part_with_placeholder(const std::vector<ChatMessage>& messages) const;
  std::vector<ImagePatches> make_patches(const std::vector<ChatMessage>& messages) const;
  std::vector<int32_t> expand_placeholders(const std::vector<int32_t>& token_ids, const std::vector<ImagePatches>& images) const;

  BpeTokenizer tokenizer_;
  ChatTemplate chat_template_;
  std::optional<Vision> vision_;
  ImageLimits limits_;
};

}  // namespace skipper
