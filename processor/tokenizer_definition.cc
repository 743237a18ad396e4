#include "processor/tokenizer_definition.h"

#include <algorithm>
#include <functional>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json_fields.h"
#include "processor/added_token_reader.h"
#include "processor/byte_alphabet.h"

namespace skipper {

using nlohmann::json;

namespace {

constexpr int kMaxNesting = 8;

// How a ByteLevel pre-tokenizer with use_regex splits: contractions, words, numbers, punctuation, spaces (GPT-2).
constexpr const char* kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

void require_absent_or(const JsonFields& fields, const std::string& key, const std::vector<json>& accepted) {
  const json& value = fields.raw(key);
  if (value.is_null() || std::find(accepted.begin(), accepted.end(), value) != accepted.end()) return;
  fields.fail(key, value.dump() + " is not supported by this byte-level BPE tokenizer");
}

[[noreturn]] void refuse_type(const JsonFields& step) {
  step.fail("type", "\"" + step.required_string("type") + "\" is not supported by this byte-level BPE tokenizer");
}

// A normalizer or pre-tokenizer is one step, or a Sequence of them under `list_key`.
struct StepReader {
  const char* list_key;
  std::function<void(const JsonFields& step)> read;

  void read_all(const JsonFields& parent, const std::string& key) const {
    if (parent.has(key)) read_nested(parent.required_object(key), 0);
  }

 private:
  void read_nested(const JsonFields& step, int depth) const {
    if (step.required_string("type") != "Sequence") return read(step);
    if (depth == kMaxNesting) step.fail("type", "\"Sequence\" nested more than " + std::to_string(depth) + " deep");
    const json& list = step.raw(list_key);
    if (!list.is_array()) step.fail(list_key, "expected a list, found " + list.dump());
    for (size_t i = 0; i < list.size(); ++i) {
      read_nested(JsonFields(list[i], step.path() + ": " + list_key + "[" + std::to_string(i) + "]"), depth + 1);
    }
    step.reject_unknown_keys();
  }
};

void read_normalizer(const JsonFields& file, TokenizerDefinition& definition) {
  const StepReader reader{"normalizers", [&](const JsonFields& step) {
                            if (step.required_string("type") != "NFC") refuse_type(step);
                            step.reject_unknown_keys();
                            definition.normalizes_nfc = true;
                          }};
  reader.read_all(file, "normalizer");
}

std::string read_split_pattern(const JsonFields& step) {
  require_absent_or(step, "behavior", {"Isolated"});
  require_absent_or(step, "invert", {false});
  const JsonFields pattern = step.required_object("pattern");
  const std::string regex = pattern.required_string("Regex");
  pattern.reject_unknown_keys();
  step.reject_unknown_keys();
  return regex;
}

void read_pre_tokenizer(const JsonFields& file, TokenizerDefinition& definition) {
  bool is_byte_level = false;
  const auto read_byte_level = [&](const JsonFields& step) {
    require_absent_or(step, "add_prefix_space", {false});
    if (!step.has("add_prefix_space")) step.fail("add_prefix_space", "is missing; expected false");
    step.optional_bool("trim_offsets", true);  // we report no offsets
    if (step.optional_bool("use_regex", true)) definition.split_patterns.push_back(kGpt2Pattern);
    step.reject_unknown_keys();
    is_byte_level = true;
  };
  const StepReader reader{"pretokenizers", [&](const JsonFields& step) {
                            const std::string type = step.required_string("type");
                            if (is_byte_level) step.fail("type", "\"" + type + "\" after ByteLevel is not supported");
                            if (type == "ByteLevel") return read_byte_level(step);
                            if (type != "Split") refuse_type(step);
                            definition.split_patterns.push_back(read_split_pattern(step));
                          }};
  reader.read_all(file, "pre_tokenizer");
  if (!is_byte_level) file.fail("pre_tokenizer", "has no ByteLevel step; only byte-level BPE is supported");
}

// Their only known effect on ids would be tokens that the chat template writes anyway, so none of them may have any.
void require_neutral_post_processing(const JsonFields& file) {
  if (file.has("post_processor")) {
    const JsonFields post_processor = file.required_object("post_processor");
    if (post_processor.required_string("type") != "ByteLevel") refuse_type(post_processor);
  }
  const JsonFields decoder = file.required_object("decoder");
  if (decoder.required_string("type") != "ByteLevel") refuse_type(decoder);
}

using VocabularyIds = std::unordered_map<std::string, int32_t>;

int32_t checked_token_id(const JsonFields& model, const std::string& token, const json& id) {
  const bool valid = id.is_number_integer() && id.get<int64_t>() >= 0 && id.get<int64_t>() <= kMaxTokenId;
  if (!valid) model.fail("vocab", json(token).dump() + " has the id " + id.dump() + "; expected 0 to " +
                                      std::to_string(kMaxTokenId));
  return id.get<int32_t>();
}

VocabularyIds read_vocabulary(const JsonFields& model, TokenizerDefinition& definition) {
  model.required_object("vocab");
  VocabularyIds ids;
  for (const auto& [token, id_value] : model.raw("vocab").items()) {
    const int32_t id = checked_token_id(model, token, id_value);
    if (token.empty()) model.fail("vocab", "has an empty token");
    const auto bytes = bytes_of_alphabet_text(token);
    if (definition.token_bytes.size() <= static_cast<size_t>(id)) definition.token_bytes.resize(id + 1);
    std::string& slot = definition.token_bytes[id];
    if (!slot.empty()) model.fail("vocab", "two tokens have the id " + std::to_string(id));
    slot = bytes.value_or(token);
    if (bytes) definition.model_token_ids.emplace(*bytes, id);
    ids.emplace(token, id);
  }
  return ids;
}

// Bytes C0, C1 and F5 on begin no character; a vocabulary may lack them, but no other.
void require_all_bytes(const JsonFields& model, const TokenizerDefinition& definition) {
  for (int byte = 0; byte < 0xF5; ++byte) {
    const bool is_used = byte != 0xC0 && byte != 0xC1;
    if (is_used && !definition.model_token_ids.contains(std::string(1, static_cast<char>(byte)))) {
      model.fail("vocab", "has no token for byte " + std::to_string(byte) + "; byte-level BPE needs one for every byte");
    }
  }
}

// "a b" or ["a", "b"].
std::pair<std::string, std::string> read_merge_pair(const JsonFields& model, const json& merge) {
  if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) return {merge[0], merge[1]};
  if (merge.is_string()) {
    const std::string text = merge;
    const size_t space = text.find(' ');
    if (space != std::string::npos && text.find(' ', space + 1) == std::string::npos) {
      return {text.substr(0, space), text.substr(space + 1)};
    }
  }
  model.fail("merges", merge.dump() + " is not a pair of tokens");
}

void read_merges(const JsonFields& model, const VocabularyIds& ids, TokenizerDefinition& definition) {
  const json& merges = model.raw("merges");
  if (!merges.is_array()) model.fail("merges", "expected a list of pairs, found " + merges.dump());
  const auto id_of = [&](const std::string& token) {
    const auto found = ids.find(token);
    if (found == ids.end()) model.fail("merges", json(token).dump() + " is not in the vocabulary");
    return found->second;
  };
  definition.merges.reserve(merges.size());
  for (const json& merge : merges) {
    const auto [left, right] = read_merge_pair(model, merge);
    definition.merges.push_back({id_of(left), id_of(right), id_of(left + right)});
  }
}

void read_model(const JsonFields& file, TokenizerDefinition& definition) {
  const JsonFields model = file.required_object("model");
  if (model.optional_string("type", "BPE") != "BPE") refuse_type(model);
  require_absent_or(model, "dropout", {0.0});
  require_absent_or(model, "continuing_subword_prefix", {""});
  require_absent_or(model, "end_of_word_suffix", {""});
  require_absent_or(model, "byte_fallback", {false});
  model.optional_bool("fuse_unk", false);    // with a token for every byte
  model.optional_string("unk_token", "");    // nothing is unknown
  definition.ignores_merges = model.optional_bool("ignore_merges", false);
  const VocabularyIds ids = read_vocabulary(model, definition);
  require_all_bytes(model, definition);
  read_merges(model, ids, definition);
  model.reject_unknown_keys();
}

}  // namespace

TokenizerDefinition read_tokenizer_definition(const std::filesystem::path& model_directory) {
  const std::filesystem::path path = model_directory / "tokenizer.json";
  const json contents = read_json_file(path);
  const JsonFields file(contents, path.string());
  require_absent_or(file, "version", {"1.0"});
  file.raw("truncation");  // how texts are cut and
  file.raw("padding");     // batched is our caller's business
  TokenizerDefinition definition;
  read_normalizer(file, definition);
  read_pre_tokenizer(file, definition);
  require_neutral_post_processing(file);
  read_model(file, definition);
  read_added_tokens(file, model_directory / "tokenizer_config.json", definition);
  file.reject_unknown_keys();
  return definition;
}

}  // namespace skipper
