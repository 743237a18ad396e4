#include "template_cases.h"

#include <gtest/gtest.h>

#include "jinja/template.h"
#include "jinja/template_error.h"

namespace skipper::jinja {
namespace {

void check(const TemplateCase& one, const Map& context) {
  SCOPED_TRACE(one.name + ": " + one.source);
  try {
    const std::string rendered = Template(one.source).render(context);
    ASSERT_TRUE(one.outcome.contains("expected")) << "Python refuses this, ours printed: " << rendered;
    EXPECT_EQ(rendered, one.outcome.at("expected").get<std::string>());
  } catch (const RaisedByTemplate& error) {
    ASSERT_TRUE(one.outcome.contains("raised")) << error.what();
    EXPECT_EQ(error.message(), one.outcome.at("raised").get<std::string>());
  } catch (const TemplateError& error) {
    EXPECT_TRUE(one.outcome.contains("fails")) << error.what();
  }
}

TEST(TemplateCases, RenderOrFailAsInPython) {
  const std::vector<TemplateCase> cases = all_template_cases();
  ASSERT_GE(cases.size(), 200u);
  const Map context = template_case_context();
  for (const TemplateCase& one : cases) check(one, context);
}

TEST(TemplateCases, RenderTheSameAgainWhenATemplateIsUsedTwice) {
  const Map context = template_case_context();
  const Template counting("{% set ns = namespace(n=0) %}{% for x in numbers %}{% set ns.n = ns.n + x %}{% endfor %}{{ ns.n }}");
  EXPECT_EQ(counting.render(context), "6");
  EXPECT_EQ(counting.render(context), "6");
}

}  // namespace
}  // namespace skipper::jinja
