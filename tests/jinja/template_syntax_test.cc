#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "jinja/template.h"
#include "jinja/template_error.h"

namespace skipper::jinja {
namespace {

// What the parser says; templates are not rendered here.
std::string refusal_of(const std::string& source) {
  try {
    const Template parsed(source);
    return "parsed";
  } catch (const TemplateError& error) {
    return error.what();
  }
}

struct Refused {
  std::string source;
  std::string message;
};

TEST(TemplateSyntax, RefusesWhatIsOutsideTheSubsetByLineAndName) {
  const std::vector<Refused> refused = {
      {"{% block a %}{% endblock %}", "line 1: the tag 'block' is not supported"},
      {"\n\n{% extends 'x' %}", "line 3: the tag 'extends' is not supported"},
      {"{% include 'x' %}", "line 1: the tag 'include' is not supported"},
      {"{% import 'x' as y %}", "line 1: the tag 'import' is not supported"},
      {"{% from 'x' import y %}", "line 1: the tag 'from' is not supported"},
      {"{% with a = 1 %}{% endwith %}", "line 1: the tag 'with' is not supported"},
      {"{% filter upper %}{% endfilter %}", "line 1: the tag 'filter' is not supported"},
      {"{% do f() %}", "line 1: the tag 'do' is not supported"},
      {"{% autoescape true %}", "line 1: the tag 'autoescape' is not supported"},
      {"a\n{% raw %}{{{% endraw %}", "line 2: raw blocks are not supported"},
      {"{%- raw -%}", "line 1: raw blocks are not supported"},
      {"{% for a in b recursive %}{% endfor %}", "line 1: a recursive for is not supported"},
      {"{% for a in b %}{{ loop.changed(a) }}{% endfor %}", "line 1: loop.changed is not supported"},
      {"{% set a | upper %}{% endset %}", "line 1: a filter on a set block is not supported"},
      {"{% macro m(*a) %}{% endmacro %}", "line 1: a * parameter is not supported"},
      {"{% macro m() %}{{ varargs }}{% endmacro %}", "line 1: the macro variable varargs is not supported"},
      {"{{ f(*a) }}", "line 1: argument unpacking with * is not supported"},
      {"{{ f(**a) }}", "line 1: argument unpacking with * is not supported"},
      {"{{ a[1, 2] }}", "line 1: a subscript with several keys is not supported"},
      {"{{ {1: 'a'} }}", "line 1: a key that is not a string is not supported"},
      {"{{ a.__class__ }}", "line 1: the private attribute .__class__ is not supported"},
      {"{% set ns._x = 1 %}", "line 1: the private attribute ._x is not supported"},
      {"{{ a\n|escape }}", "line 2: the filter 'escape' is not supported"},
      {"{{ a is sameas b }}", "line 1: the test 'sameas' is not supported"},
      {"{% set loop = 1 %}", "line 1: assigning to loop is not supported"},
      {"{{ '\\N{DASH}' }}", "line 1: \\N{...} escapes are not supported; write the character itself"},
  };
  for (const Refused& one : refused) EXPECT_EQ(refusal_of(one.source), one.message) << one.source;
}

TEST(TemplateSyntax, SaysWhatWasExpectedAndWhere) {
  const std::vector<Refused> refused = {
      {"{{ name", "line 1: {{ is not closed; write }} at its end"},
      {"\n{% if a", "line 2: {% is not closed; write %} at its end"},
      {"{# note", "line 1: a comment is not closed; write #} at its end"},
      {"{{ 'abc }}", "line 1: a string is not closed"},
      {"{% if a %}\n\nx", "line 3: expected 'elif' or 'else' or 'endif', found the end of the template"},
      {"{% endif %}", "line 1: 'endif' ends nothing"},
      {"{{ a b }}", "line 1: expected '}}', found 'b'"},
      {"{{ a ? b }}", "line 1: unexpected character '?'"},
      {"{{ [1) }}", "line 1: unexpected ')'"},
      {"{% break %}", "line 1: break outside a for loop"},
      {"{% for a in b %}{% macro m() %}{% continue %}{% endmacro %}{% endfor %}",
       "line 1: continue outside a for loop"},
      {"{% for a in b %}{% set c %}{% break %}{% endset %}{% endfor %}", "line 1: break outside a for loop"},
      {"{{ }}", "line 1: expected an expression, found '}}'"},
      {"{% %}", "line 1: expected a name, found '%}'"},
      {"{{ 0123 }}", "line 1: the number 0123 starts with 0"},
      {"{% call f %}{% endcall %}", "line 1: a call block needs a call"},
  };
  for (const Refused& one : refused) EXPECT_EQ(refusal_of(one.source), one.message) << one.source;
}

TEST(TemplateSyntax, NamesTheLineOfAnErrorWhileRendering) {
  const Template broken("one\n{% if true %}\n  {{ 1 +\n 'x' }}\n{% endif %}");
  try {
    broken.render({});
    FAIL() << "1 + 'x' must fail";
  } catch (const TemplateError& error) {
    EXPECT_EQ(error.line(), 4);
    EXPECT_EQ(error.message(), "'+' does not take int and str");
  }
}

TEST(TemplateSyntax, RefusesMethodsThatAreReadInsteadOfCalled) {
  Map context;
  context.set("m", Value::map({}));
  try {
    Template("{{ m.items }}").render(context);
    FAIL() << "a method is no value";
  } catch (const TemplateError& error) {
    EXPECT_THAT(error.message(), ::testing::HasSubstr("'items' is a method of dict"));
  }
}

TEST(TemplateSyntax, FormatsTheTimeItIsGiven) {
  const Template dated("{{ strftime_now('%Y') }}[{{ strftime_now('') }}]");
  EXPECT_EQ(dated.render_at(200'000'000, {}), "1976[]");
}

}  // namespace
}  // namespace skipper::jinja
