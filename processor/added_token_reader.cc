#include "processor/added_token_reader.h"

#include <map>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "processor/byte_alphabet.h"
#include "processor/unicode_normalization.h"
#include "processor/utf8.h"

namespace skipper {

using nlohmann::json;

namespace {

using AddedTokensById = std::map<int32_t, AddedToken>;

AddedToken read_added_token(const JsonFields& fields, int32_t id) {
  AddedToken token;
  token.id = id;
  token.content = fields.required_string("content");
  if (token.content.empty()) fields.fail("content", "\"\" cannot be a token");
  token.special = fields.optional_bool("special", false);
  token.single_word = fields.optional_bool("single_word", false);
  token.lstrip = fields.optional_bool("lstrip", false);
  token.rstrip = fields.optional_bool("rstrip", false);
  token.normalized = fields.optional_bool("normalized", !token.special);
  return token;
}

AddedTokensById read_tokenizer_json_tokens(const JsonFields& tokenizer) {
  AddedTokensById tokens;
  const json& list = tokenizer.raw("added_tokens");
  if (list.is_null()) return tokens;
  if (!list.is_array()) tokenizer.fail("added_tokens", "expected a list, found " + list.dump());
  for (size_t i = 0; i < list.size(); ++i) {
    const JsonFields fields(list[i], tokenizer.path() + ": added_tokens[" + std::to_string(i) + "]");
    const auto id = static_cast<int32_t>(fields.required_int("id", 0, kMaxTokenId));
    const AddedToken token = read_added_token(fields, id);
    fields.reject_unknown_keys();
    if (!tokens.emplace(id, token).second) fields.fail("id", std::to_string(id) + " is used twice");
  }
  return tokens;
}

int32_t parse_token_id(const JsonFields& config, const std::string& text) {
  const bool is_number = !text.empty() && text.size() <= 8 && text.find_first_not_of("0123456789") == std::string::npos;
  if (!is_number || std::stol(text) > kMaxTokenId) config.fail("added_tokens_decoder", "\"" + text + "\" is not a token id");
  return static_cast<int32_t>(std::stol(text));
}

void overrule_flags(const JsonFields& config, AddedTokensById& tokens) {
  const json& decoder = config.raw("added_tokens_decoder");
  if (decoder.is_null()) return;
  config.required_object("added_tokens_decoder");
  for (const auto& [id_text, value] : decoder.items()) {
    const int32_t id = parse_token_id(config, id_text);
    const JsonFields fields(value, config.path() + ": added_tokens_decoder: " + id_text);
    const AddedToken token = read_added_token(fields, id);
    const auto [known, is_new] = tokens.emplace(id, token);
    if (!is_new && known->second.content != token.content) {
      fields.fail("content", json(token.content).dump() + ", but tokenizer.json calls this token " +
                                 json(known->second.content).dump());
    }
    known->second = token;
  }
}

// "text" or {"content": "text", ...}.
std::string special_token_content(const json& value) {
  if (value.is_string()) return value;
  if (value.is_object() && value.contains("content") && value["content"].is_string()) return value["content"];
  return "";
}

void mark_named_special_tokens(const JsonFields& config, AddedTokensById& tokens) {
  const auto mark = [&](const json& value) {
    const std::string content = special_token_content(value);
    for (auto& [id, token] : tokens) {
      if (token.content == content) token.special = true;
    }
  };
  for (const char* key : {"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"}) {
    mark(config.raw(key));
  }
  for (const char* key : {"additional_special_tokens", "extra_special_tokens"}) {
    for (const json& value : config.raw(key)) mark(value);
  }
}

// HF finds a normalized token by its normalized content, and decodes every token by the byte alphabet if it can.
std::string decoded_bytes(const AddedToken& token, const TokenizerDefinition& definition) {
  const bool is_normalized = token.normalized && definition.normalizes_nfc;
  const std::string content = is_normalized ? normalize_nfc(token.content) : token.content;
  return bytes_of_alphabet_text(content).value_or(content);
}

void add_to_vocabulary(const JsonFields& tokenizer, const AddedToken& token, TokenizerDefinition& definition) {
  if (find_invalid_utf8(token.content)) tokenizer.fail("added_tokens", json(token.content).dump() + " is not UTF-8");
  if (definition.token_bytes.size() <= static_cast<size_t>(token.id)) definition.token_bytes.resize(token.id + 1);
  std::string& bytes = definition.token_bytes[token.id];
  const std::string decoded = decoded_bytes(token, definition);
  if (!bytes.empty() && bytes != decoded) {
    tokenizer.fail("added_tokens", json(token.content).dump() + " has the id " + std::to_string(token.id) +
                                       " of another token in model.vocab");
  }
  bytes = decoded;
  definition.added_tokens.push_back(token);
}

}  // namespace

void read_added_tokens(const JsonFields& tokenizer, const std::filesystem::path& config_path,
                       TokenizerDefinition& definition) {
  AddedTokensById tokens = read_tokenizer_json_tokens(tokenizer);
  if (std::filesystem::exists(config_path)) {
    const json contents = read_json_file(config_path);
    const JsonFields config(contents, config_path.string());
    overrule_flags(config, tokens);
    mark_named_special_tokens(config, tokens);
  }
  for (const auto& [id, token] : tokens) add_to_vocabulary(tokenizer, token, definition);
}

}  // namespace skipper
