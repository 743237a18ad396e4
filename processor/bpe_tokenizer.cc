#include "processor/bpe_tokenizer.h"

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "base/error.h"
#include "processor/bpe_merger.h"
#include "processor/regex_splitter.h"
#include "processor/tokenizer_definition.h"
#include "processor/unicode_normalization.h"
#include "processor/utf8.h"

namespace skipper {
namespace {

constexpr size_t kMaxTextBytes = size_t{1} << 30;  // positions in a word are 32-bit

std::vector<RegexSplitter> make_splitters(const TokenizerDefinition& definition, const std::string& origin) {
  std::vector<RegexSplitter> splitters;
  for (const std::string& pattern : definition.split_patterns) splitters.emplace_back(pattern, origin);
  return splitters;
}


std::vector<AddedToken> verbatim_tokens(const TokenizerDefinition& definition) {
  std::vector<AddedToken> tokens;
  for (const AddedToken& token : definition.added_tokens) {
    if (!token.normalized) tokens.push_back(token);
  }
  return tokens;
}

std::vector<AddedToken> normalized_tokens(const TokenizerDefinition& definition) {
  std::vector<AddedToken> tokens;
  for (AddedToken token : definition.added_tokens) {
    if (!token.normalized) continue;
    if (definition.normalizes_nfc) token.content = normalize_nfc(token.content);
    tokens.push_back(std::move(token));
  }
  return tokens;
}

void require_encodable(std::string_view text) {
  if (text.size() > kMaxTextBytes) {
    throw InvalidRequest("the text has " + std::to_string(text.size()) + " bytes; at most " +
                             std::to_string(kMaxTextBytes) + " can be tokenized", "prompt");
  }
  if (const auto offset = find_invalid_utf8(text)) {
    throw InvalidRequest("the text is not valid UTF-8 at byte offset " + std::to_string(*offset), "prompt");
  }
}

}  // namespace

struct BpeTokenizer::State {
  State(TokenizerDefinition read, const std::string& origin)
      : definition(std::move(read)),
        verbatim(verbatim_tokens(definition)),
        normalized(normalized_tokens(definition)),
        splitters(make_splitters(definition, origin)),
        merger(definition) {
    for (const AddedToken& token : definition.added_tokens) {
      added_token_ids.emplace(token.content, token.id);
      if (token.special) special_ids.push_back(token.id);
    }
    definition.merges = {};  // now in `merger`
  }

  TokenizerDefinition definition;
  AddedVocabulary verbatim;
  AddedVocabulary normalized;
  std::vector<RegexSplitter> splitters;
  BpeMerger merger;
  std::unordered_map<std::string, int32_t> added_token_ids;
  std::vector<int32_t> special_ids;
};

// One call of encode(): the stages in the order of HF, and their working memory.
class BpeTokenizer::Encoding {
 public:
  Encoding(const State& state, SpecialTokens special_tokens) : state_(state), special_tokens_(special_tokens) {}

  std::vector<int32_t> run(std::string_view text) && {
    for (const TextSegment& segment : state_.verbatim.split(text, special_tokens_)) {
      if (segment.token_id >= 0) {
        token_ids_.push_back(segment.token_id);
      } else if (state_.definition.normalizes_nfc) {
        append_normalized(normalize_nfc(segment.text));
      } else {
        append_normalized(segment.text);
      }
    }
    return std::move(token_ids_);
  }

 private:
  void append_normalized(std::string_view text) {
    for (const TextSegment& segment : state_.normalized.split(text, special_tokens_)) {
      if (segment.token_id >= 0) {
        token_ids_.push_back(segment.token_id);
      } else {
        append_plain(segment.text);
      }
    }
  }

  void append_plain(std::string_view text) {
    pieces_.assign(1, text);
    for (const RegexSplitter& splitter : state_.splitters) {
      std::vector<std::string_view> finer;
      for (const std::string_view piece : pieces_) splitter.split(piece, regex_scratch_, finer);
      pieces_ = std::move(finer);
    }
    for (const std::string_view word : pieces_) append_word(word);
  }

  void append_word(std::string_view word) {
    if (state_.definition.ignores_merges) {
      const auto found = state_.definition.model_token_ids.find(std::string(word));
      if (found != state_.definition.model_token_ids.end()) return token_ids_.push_back(found->second);
    }
    state_.merger.append_tokens(word, merge_scratch_, token_ids_);
  }

  const State& state_;
  SpecialTokens special_tokens_;
  RegexScratch regex_scratch_;
  MergeScratch merge_scratch_;
  std::vector<std::string_view> pieces_;
  std::vector<int32_t> token_ids_;
};

BpeTokenizer::BpeTokenizer(const std::filesystem::path& model_directory)
    : state_(std::make_unique<State>(read_tokenizer_definition(model_directory),
                                     (model_directory / "tokenizer.json").string() + ": pre_tokenizer")) {}

BpeTokenizer::~BpeTokenizer() = default;
BpeTokenizer::BpeTokenizer(BpeTokenizer&&) noexcept = default;

std::vector<int32_t> BpeTokenizer::encode(std::string_view text, SpecialTokens special_tokens) const {
  require_encodable(text);
  return Encoding(*state_, special_tokens).run(text);
}

std::string BpeTokenizer::decode(std::span<const int32_t> token_ids) const {
  std::string bytes;
  for (const int32_t id : token_ids) bytes += token_bytes(id);
  return bytes;
}

std::string_view BpeTokenizer::token_bytes(int32_t token_id) const {
  const bool known = token_id >= 0 && token_id < vocab_size();
  return known ? std::string_view(state_->definition.token_bytes[token_id]) : std::string_view();
}

std::optional<int32_t> BpeTokenizer::token_id(std::string_view text) const {
  const std::string key(text);
  for (const auto* ids : {&state_->added_token_ids, &state_->definition.model_token_ids}) {
    if (const auto found = ids->find(key); found != ids->end()) return found->second;
  }
  return std::nullopt;
}

const std::vector<int32_t>& BpeTokenizer::special_ids() const { return state_->special_ids; }

bool BpeTokenizer::is_special(int32_t token_id) const {
  return std::binary_search(state_->special_ids.begin(), state_->special_ids.end(), token_id);
}

int32_t BpeTokenizer::vocab_size() const { return static_cast<int32_t>(state_->definition.token_bytes.size()); }

}  // namespace skipper
