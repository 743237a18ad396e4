#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "jinja/template.h"
#include "jinja/template_error.h"

namespace skipper::jinja {
namespace {

using ::testing::HasSubstr;

std::string failure_of(const std::string& source, Limits limits = {}) {
  try {
    return "rendered: " + Template(source, limits).render({}).substr(0, 100);
  } catch (const TemplateError& error) {
    return error.what();
  }
}

std::string repeated(const std::string& text, int times) {
  std::string result;
  for (int i = 0; i < times; ++i) result += text;
  return result;
}

TEST(TemplateLimits, StopNestedLoopsAfterAMillionSteps) {
  const std::string loops = "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}";
  EXPECT_THAT(failure_of(loops), HasSubstr("needs more than 1000000 steps"));
}

TEST(TemplateLimits, AllowExactlyTheStepsOfTheLimit) {
  Limits limits;
  limits.max_steps = 2;  // the statement and its literal
  EXPECT_EQ(Template("{{ 1 }}", limits).render({}), "1");
  limits.max_steps = 1;
  EXPECT_THAT(failure_of("{{ 1 }}", limits), HasSubstr("more than 1 steps"));
}

TEST(TemplateLimits, RefuseOutputOverTheLimit) {
  Limits limits;
  limits.max_output_bytes = 10;
  EXPECT_EQ(Template("0123456789", limits).render({}), "0123456789");
  EXPECT_THAT(failure_of("0123456789x", limits), HasSubstr("line 1: the template makes a text of more than 10 bytes"));
}

TEST(TemplateLimits, RefuseHugeRepetitionsBeforeMakingThem) {
  EXPECT_THAT(failure_of("{{ 'x' * 10**12 }}"), HasSubstr("text of more than"));
  EXPECT_THAT(failure_of("{{ ('x' * 9999999) * 9223372036854775807 }}"), HasSubstr("text of more than"));
  EXPECT_THAT(failure_of("{{ [0] * 10**12 }}"), HasSubstr("too many"));
  EXPECT_THAT(failure_of("{{ 'a'|indent(10**12) }}"), HasSubstr("text of more than"));
  EXPECT_THAT(failure_of("{{ [1]|batch(10**12, 0)|list }}"), HasSubstr("batch"));
  EXPECT_THAT(failure_of("{{ [1]|tojson(indent=10**12) }}"), HasSubstr("indents by at most"));
  EXPECT_THAT(failure_of("{{ ('x' * 9999999)|replace('', 'yyyyyyyy') }}"), HasSubstr("bytes"));
}

TEST(TemplateLimits, RefuseTextThatDoublesWithoutEnd) {
  const std::string doubling =
      "{% set ns = namespace(s='x') %}{% for i in range(100) %}{% set ns.s = ns.s + ns.s %}{% endfor %}";
  EXPECT_THAT(failure_of(doubling), HasSubstr("text of more than"));
}

TEST(TemplateLimits, RefuseManyLargeTextsTogether) {
  const std::string many = "{% set s = 'x' * 9999999 %}{% for i in range(1000) %}{% set t = s ~ i %}{% endfor %}";
  EXPECT_THAT(failure_of(many), HasSubstr("works on more than"));
}

TEST(TemplateLimits, RefuseListsThatNestWithoutEnd) {
  const std::string nesting =
      "{% set ns = namespace(l=[]) %}{% for i in range(9999) %}{% set ns.l = [ns.l] %}{% endfor %}";
  EXPECT_THAT(failure_of(nesting), HasSubstr("nest more than 64 levels"));
}

TEST(TemplateLimits, RefuseToPrintSharedListsThatUnfoldExponentially) {
  const std::string unfolding =
      "{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}";
  EXPECT_THAT(failure_of(unfolding + "{{ ns.l }}"), HasSubstr("bytes"));
  EXPECT_THAT(failure_of(unfolding + "{{ ns.l|tojson }}"), HasSubstr("bytes"));
  EXPECT_THAT(failure_of(unfolding + "{{ ns.l|string|length }}"), HasSubstr("bytes"));
}

TEST(TemplateLimits, StopComparisonsOfSharedLists) {
  const std::string twins =
      "{% set ns = namespace(a=[1], b=[1]) %}"
      "{% for i in range(60) %}{% set ns.a = [ns.a, ns.a] %}{% set ns.b = [ns.b, ns.b] %}{% endfor %}";
  EXPECT_THAT(failure_of(twins + "{{ ns.a == ns.b }}"), HasSubstr("needs more than 1000000 steps"));
}

TEST(TemplateLimits, FreeNamespacesThatHoldEachOther) {
  const std::string cycle = "{% set a = namespace() %}{% set b = namespace(a=a) %}{% set a.b = b %}{% set a.a = [a] %}";
  EXPECT_EQ(Template(cycle + "{{ a.b.a.b.a == a }}").render({}), "True");
  EXPECT_THAT(failure_of(cycle + "{{ a }}"), HasSubstr("a Namespace cannot be printed"));
}

TEST(TemplateLimits, FreeLongChainsOfNamespaces) {
  const std::string chain =
      "{% set ns = namespace(x=0) %}{% for i in range(50000) %}{% set ns.x = namespace(x=ns.x) %}{% endfor %}done";
  EXPECT_EQ(Template(chain).render({}), "done");
}

TEST(TemplateLimits, StopRecursionOfMacros) {
  EXPECT_THAT(failure_of("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"), HasSubstr("nests more than 400 levels"));
}

TEST(TemplateLimits, RefuseExpressionsAndTagsThatNestTooDeepWhenParsed) {
  EXPECT_THAT(failure_of("{{ " + repeated("(", 9999) + "1" + repeated(")", 9999) + " }}"), HasSubstr("nests more than"));
  EXPECT_THAT(failure_of("{{ " + repeated("-", 9999) + "1 }}"), HasSubstr("nests more than"));
  EXPECT_THAT(failure_of("{{ " + repeated("not ", 9999) + "1 }}"), HasSubstr("nests more than"));
  EXPECT_THAT(failure_of("{{ 1" + repeated(" + 1", 9999) + " }}"), HasSubstr("nests more than 200 levels"));
  EXPECT_THAT(failure_of("{{ x" + repeated(".a", 9999) + " }}"), HasSubstr("nests more than 200 levels"));
  EXPECT_THAT(failure_of("{{ 1" + repeated(" if 1 else 1", 9999) + " }}"), HasSubstr("nests more than"));
  EXPECT_THAT(failure_of(repeated("{% if 1 %}", 9999)), HasSubstr("nest more than 60 levels"));
  EXPECT_THAT(failure_of("{% set " + repeated("(", 9999) + "a" + repeated(")", 9999) + " = 1 %}"), HasSubstr("nests too deeply"));
}

TEST(TemplateLimits, RefuseIntegersBeyond64Bits) {
  EXPECT_THAT(failure_of("{{ 9223372036854775807 + 1 }}"), HasSubstr("64 bits"));
  EXPECT_THAT(failure_of("{{ 99999999999999999999 }}"), HasSubstr("64 bits"));
  EXPECT_THAT(failure_of("{{ 10 ** 19 }}"), HasSubstr("64 bits"));
  EXPECT_THAT(failure_of("{{ (-9223372036854775807 - 1) // -1 }}"), HasSubstr("64 bits"));
  EXPECT_EQ(Template("{{ -9223372036854775807 - 1 }}").render({}), "-9223372036854775808");
  EXPECT_EQ(Template("{{ (-9223372036854775807 - 1) % -1 }}").render({}), "0");
  EXPECT_EQ(Template("{{ range(9223372036854775805, 9223372036854775807, 5)|list }}").render({}),
            "[9223372036854775805]");
}

TEST(TemplateLimits, RefuseMacrosOutsideTheBlockThatDefinedThem) {
  const std::string escaping =
      "{% set ns = namespace() %}{% for i in [1] %}{% macro m() %}x{% endmacro %}{% set ns.m = m %}{% endfor %}{{ ns.m() }}";
  EXPECT_THAT(failure_of(escaping), HasSubstr("outside the block that defined it"));
}

}  // namespace
}  // namespace skipper::jinja
