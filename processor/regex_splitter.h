// Splits text by a tokenizer's regular expression, with bounds on what hostile text can cost.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace skipper {

// The working memory of one thread's matching; any number of splitters may use it in turn.
class RegexScratch {
 public:
  RegexScratch();
  ~RegexScratch();

 private:
  friend class RegexSplitter;
  struct State;
  std::unique_ptr<State> state_;
};

// Immutable; several threads may use it, each with its own RegexScratch.
class RegexSplitter {
 public:
  // `pattern` is in the dialect of Hugging Face tokenizers (Oniguruma with Unicode classes). Throws InvalidFile, whose
  // message starts with `origin`, for a mistake in it and for constructs that PCRE2 would read differently.
  RegexSplitter(const std::string& pattern, const std::string& origin);
  ~RegexSplitter();
  RegexSplitter(RegexSplitter&&) noexcept;

  // Appends to `pieces` every match and every stretch between matches, in order, without empty ones ("Isolated").
  // `text` is valid UTF-8. Throws InvalidRequest when matching needs more steps or memory than the limits.
  void split(std::string_view text, RegexScratch& scratch, std::vector<std::string_view>& pieces) const;

 private:
  struct Match {
    size_t begin = 0;
    size_t end = 0;
  };
  std::optional<Match> find(std::string_view text, size_t offset, RegexScratch& scratch) const;

  struct State;
  std::unique_ptr<State> state_;
};

// The same pattern for PCRE2: \s, \w and their negations spelled out, since the two engines know different sets by these
// names. Throws InvalidFile as RegexSplitter does.
std::string translate_oniguruma_pattern(const std::string& pattern, const std::string& origin);

}  // namespace skipper
