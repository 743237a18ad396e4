#include "processor/regex_splitter.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <glog/logging.h>
#include <pcre2.h>

#include "base/error.h"
#include "processor/utf8.h"

namespace skipper {
namespace {

// One match looks at each character a few times; a run of a million spaces stays far below this.
constexpr uint32_t kMatchLimit = 100'000'000;
constexpr uint32_t kDepthLimit = 10'000;
constexpr uint32_t kHeapLimitKib = 64 * 1024;  // only used where PCRE2 has no JIT compiler
constexpr size_t kJitStackStartBytes = 32 * 1024;
constexpr size_t kJitStackLimitBytes = 4 * 1024 * 1024;

template <auto kFree>
struct FreeWith {
  template <typename T>
  void operator()(T* object) const {
    kFree(object);
  }
};
using Code = std::unique_ptr<pcre2_code, FreeWith<pcre2_code_free>>;
using MatchData = std::unique_ptr<pcre2_match_data, FreeWith<pcre2_match_data_free>>;
using MatchContext = std::unique_ptr<pcre2_match_context, FreeWith<pcre2_match_context_free>>;
using JitStack = std::unique_ptr<pcre2_jit_stack, FreeWith<pcre2_jit_stack_free>>;

std::string pcre2_message(int error) {
  PCRE2_UCHAR text[256];
  pcre2_get_error_message(error, text, sizeof text);
  return reinterpret_cast<const char*>(text);
}

Code compile(const std::string& pattern, const std::string& origin) {
  const std::string translated = translate_oniguruma_pattern(pattern, origin);
  int error = 0;
  size_t error_offset = 0;
  // In Oniguruma ^ and $ always mean line ends.
  const uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
  Code code(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(), options, &error,
                          &error_offset, nullptr));
  if (!code) throw InvalidFile(origin + ": \"" + pattern + "\": " + pcre2_message(error));
  pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);  // without a JIT compiler pcre2_match interprets: slower, the same
  return code;
}

}  // namespace

struct RegexScratch::State {
  MatchData match_data{pcre2_match_data_create(1, nullptr)};
  MatchContext context{pcre2_match_context_create(nullptr)};
  JitStack jit_stack{pcre2_jit_stack_create(kJitStackStartBytes, kJitStackLimitBytes, nullptr)};
};

RegexScratch::RegexScratch() : state_(std::make_unique<State>()) {
  if (!state_->match_data || !state_->context || !state_->jit_stack) throw std::bad_alloc();
  pcre2_match_context* context = state_->context.get();
  pcre2_set_match_limit(context, kMatchLimit);
  pcre2_set_depth_limit(context, kDepthLimit);
  pcre2_set_heap_limit(context, kHeapLimitKib);
  pcre2_jit_stack_assign(context, nullptr, state_->jit_stack.get());
}

RegexScratch::~RegexScratch() = default;

struct RegexSplitter::State {
  Code code;
};

RegexSplitter::RegexSplitter(const std::string& pattern, const std::string& origin)
    : state_(std::make_unique<State>(State{compile(pattern, origin)})) {}

RegexSplitter::~RegexSplitter() = default;
RegexSplitter::RegexSplitter(RegexSplitter&&) noexcept = default;

void RegexSplitter::split(std::string_view text, RegexScratch& scratch, std::vector<std::string_view>& pieces) const {
  const auto append = [&](size_t begin, size_t end) {
    if (begin < end) pieces.push_back(text.substr(begin, end - begin));
  };
  size_t piece_begin = 0;
  size_t search_from = 0;
  while (search_from < text.size()) {
    const auto match = find(text, search_from, scratch);
    if (!match) break;
    append(piece_begin, match->begin);
    append(match->begin, match->end);
    piece_begin = match->end;
    // An empty match only cuts; the search goes on behind the next character.
    const bool go_on = match->end > match->begin || match->end == text.size();
    search_from = go_on ? match->end : match->end + read_utf8(text, match->end).length;
  }
  append(piece_begin, text.size());
}

std::optional<RegexSplitter::Match> RegexSplitter::find(std::string_view text, size_t offset,
                                                        RegexScratch& scratch) const {
  pcre2_match_data* match_data = scratch.state_->match_data.get();
  const int result = pcre2_match(state_->code.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), offset,
                                 PCRE2_NO_UTF_CHECK, match_data, scratch.state_->context.get());
  if (result == PCRE2_ERROR_NOMATCH) return std::nullopt;
  if (result < 0) {
    throw InvalidRequest("the text is too complex to tokenize (" + pcre2_message(result) + " near byte " +
                             std::to_string(offset) + "); shorten its longest runs of one kind of character",
                         "prompt");
  }
  const size_t* bounds = pcre2_get_ovector_pointer(match_data);
  return Match{bounds[0], bounds[1]};
}

}  // namespace skipper
