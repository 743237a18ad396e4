// Templates damaged at random: whatever comes out, it is a text or a TemplateError, and it comes soon.
#include <gtest/gtest.h>

#include <random>

#include "jinja/template.h"
#include "jinja/template_error.h"
#include "template_cases.h"

namespace skipper::jinja {
namespace {

class Mutator {
 public:
  explicit Mutator(std::vector<TemplateCase> cases) : cases_(std::move(cases)) {}

  // One to eight damages to one of the templates.
  std::string next() {
    std::string source = pick().source;
    const size_t count = 1 + number_below(8);
    for (size_t i = 0; i < count; ++i) damage(source);
    return source;
  }

 private:
  size_t number_below(size_t limit) { return std::uniform_int_distribution<size_t>(0, limit - 1)(random_); }
  const TemplateCase& pick() { return cases_[number_below(cases_.size())]; }

  std::string piece_of(const std::string& text) {
    const size_t start = number_below(text.size() + 1);
    return text.substr(start, number_below(20));
  }

  void damage(std::string& source) {
    static const std::vector<std::string> kTokens = {"{{", "}}", "{%", "%}", "{#", "#}", "-%}", "(",  ")",   "[",
                                                     "]",  "{",  "}",  "|",  ".",  ":",  "'",   "\"", "\\",  "~",
                                                     "**", "//", "if", "is", "in", "or", "99999999", "\xff", "é", "\n"};
    const size_t at = number_below(source.size() + 1);
    switch (number_below(5)) {
      case 0: source.erase(at, number_below(6)); break;
      case 1: source.insert(at, kTokens[number_below(kTokens.size())]); break;
      case 2: source.insert(at, piece_of(pick().source)); break;
      case 3: source.insert(at, piece_of(source)); break;
      case 4: source.replace(at, 1, 1, static_cast<char>(number_below(256))); break;
    }
  }

  std::vector<TemplateCase> cases_;
  std::mt19937 random_{20240607};
};

TEST(TemplateMutation, EndsInATextOrATemplateErrorForDamagedTemplates) {
  Mutator mutator(all_template_cases());
  const Map context = template_case_context();
  Limits limits;
  limits.max_steps = 20'000;
  limits.max_output_bytes = 1 << 20;
  limits.max_work_bytes = 8 << 20;
  size_t num_rendered = 0;
  size_t num_refused = 0;
  for (int i = 0; i < 20'000; ++i) {
    const std::string source = mutator.next();
    SCOPED_TRACE(source);
    try {
      Template(source, limits).render(context);
      ++num_rendered;
    } catch (const TemplateError& error) {
      EXPECT_GE(error.line(), 1);
      ++num_refused;
    }
  }
  EXPECT_GT(num_rendered, 1000u);
  EXPECT_GT(num_refused, 1000u);
}

}  // namespace
}  // namespace skipper::jinja
