#include "jinja/parser.h"

#include <initializer_list>

#include "jinja/expression_parser.h"
#include "jinja/lexer.h"
#include "jinja/token_cursor.h"

namespace skipper::jinja {
namespace {

constexpr int kMaxStatementNesting = 60;

bool is_constant(const std::string& name) {
  return name == "true" || name == "True" || name == "false" || name == "False" || name == "none" || name == "None";
}

class Parser {
 public:
  explicit Parser(std::string_view source) : tokens_(tokenize(source)), expressions_(tokens_) {}

  Body parse() {
    Body body = parse_body({});
    if (!tokens_.at(TokenKind::kEnd)) tokens_.fail("'" + tokens_.after_current().text + "' ends nothing");
    return body;
  }

 private:
  using EndTags = std::initializer_list<std::string_view>;

  // Statements until one of `end_tags`; stops at that tag's "{%".
  Body parse_body(EndTags end_tags) {
    if (++nesting_ > kMaxStatementNesting) {
      tokens_.fail("tags nest more than " + std::to_string(kMaxStatementNesting) + " levels deep");
    }
    Body body;
    while (!tokens_.at(TokenKind::kEnd) && !at_tag(end_tags)) body.push_back(parse_statement());
    if (tokens_.at(TokenKind::kEnd) && end_tags.size() != 0) tokens_.fail_expected(list_tags(end_tags));
    --nesting_;
    return body;
  }

  static std::string list_tags(EndTags tags) {
    std::string text;
    for (std::string_view tag : tags) text += (text.empty() ? "'" : " or '") + std::string(tag) + "'";
    return text;
  }

  bool at_tag(EndTags names) const {
    if (!tokens_.at(TokenKind::kTagBegin)) return false;
    for (std::string_view name : names) {
      if (tokens_.after_current().kind == TokenKind::kName && tokens_.after_current().text == name) return true;
    }
    // An end tag of nothing that is open ends the outermost body, where it is reported.
    return names.size() == 0 && tokens_.after_current().text.starts_with("end");
  }

  // "{% name %}"
  void expect_tag(std::string_view name) {
    tokens_.expect(TokenKind::kTagBegin);
    tokens_.expect_name(name);
    tokens_.expect(TokenKind::kTagEnd);
  }

  Body parse_body_and_end(std::string_view end_tag) {
    Body body = parse_body({end_tag});
    expect_tag(end_tag);
    return body;
  }

  Statement parse_statement() {
    const int line = tokens_.line();
    if (tokens_.at(TokenKind::kText)) return {line, Text{tokens_.next().text}};
    if (tokens_.at(TokenKind::kOutputBegin)) return parse_output();
    tokens_.expect(TokenKind::kTagBegin);
    return parse_tag();
  }

  Statement parse_output() {
    const int line = tokens_.next().line;
    Output output{expressions_.parse_tuple()};
    tokens_.expect(TokenKind::kOutputEnd);
    return {line, std::move(output)};
  }

  Statement parse_tag() {
    const int line = tokens_.line();
    if (tokens_.skip_name("if")) return {line, parse_if()};
    if (tokens_.skip_name("for")) return {line, parse_for()};
    if (tokens_.skip_name("set")) return parse_set(line);
    if (tokens_.skip_name("macro")) return {line, parse_macro()};
    if (tokens_.skip_name("call")) return {line, parse_call_block()};
    if (tokens_.skip_name("generation")) return {line, parse_generation()};
    if (tokens_.skip_name("break")) return {line, parse_loop_control(Break{}, "break")};
    if (tokens_.skip_name("continue")) return {line, parse_loop_control(Continue{}, "continue")};
    tokens_.fail_unsupported("the tag '" + tokens_.expect_any_name() + "'");
  }

  If parse_if() {
    If statement;
    statement.branches.push_back(parse_branch());
    while (true) {
      tokens_.expect(TokenKind::kTagBegin);
      if (tokens_.skip_name("elif")) {
        statement.branches.push_back(parse_branch());
        continue;
      }
      if (tokens_.skip_name("else")) {
        tokens_.expect(TokenKind::kTagEnd);
        statement.branches.push_back({nullptr, parse_body({"endif"})});
        tokens_.expect(TokenKind::kTagBegin);
      }
      tokens_.expect_name("endif");
      tokens_.expect(TokenKind::kTagEnd);
      return statement;
    }
  }

  Branch parse_branch() {
    ExpressionPtr condition = expressions_.parse_tuple_without_condition();
    tokens_.expect(TokenKind::kTagEnd);
    return {std::move(condition), parse_body({"elif", "else", "endif"})};
  }

  For parse_for() {
    For loop;
    loop.target = parse_target();
    tokens_.expect_name("in");
    loop.iterable = expressions_.parse_tuple_without_condition();
    if (tokens_.skip_name("if")) loop.filter = expressions_.parse();
    if (tokens_.at_name("recursive")) tokens_.fail_unsupported("a recursive for");
    tokens_.expect(TokenKind::kTagEnd);
    ++open_loops_;
    loop.body = parse_body({"else", "endfor"});
    --open_loops_;
    tokens_.expect(TokenKind::kTagBegin);
    if (tokens_.skip_name("else")) {
      tokens_.expect(TokenKind::kTagEnd);
      loop.otherwise = parse_body({"endfor"});
      tokens_.expect(TokenKind::kTagBegin);
    }
    tokens_.expect_name("endfor");
    tokens_.expect(TokenKind::kTagEnd);
    return loop;
  }

  // "a", "a, b", "(a, (b, c))"
  Target parse_target() {
    Target first = parse_single_target();
    if (!tokens_.at_operator(",")) return first;
    Target tuple;
    tuple.elements.push_back(std::move(first));
    while (tokens_.skip_operator(",")) {
      const bool ends = tokens_.at_name("in") || tokens_.at_operator("=") || tokens_.at_operator(")");
      if (ends) break;
      tuple.elements.push_back(parse_single_target());
    }
    return tuple;
  }

  Target parse_single_target() {
    if (tokens_.skip_operator("(")) {
      if (++nesting_ > kMaxStatementNesting) tokens_.fail("a target nests too deeply");
      Target target = parse_target();
      tokens_.expect_operator(")");
      --nesting_;
      return target;
    }
    Target target;
    target.name = parse_new_name();
    return target;
  }

  std::string parse_new_name() {
    const std::string name = tokens_.expect_any_name();
    if (is_constant(name)) tokens_.fail("cannot assign to " + name);
    if (name == "loop") tokens_.fail_unsupported("assigning to loop");
    return name;
  }

  Statement parse_set(int line) {
    Target target = parse_target();
    if (tokens_.skip_operator(".")) target.attribute = parse_namespace_attribute();
    if (tokens_.skip_operator("=")) {
      Set statement{std::move(target), expressions_.parse_tuple()};
      tokens_.expect(TokenKind::kTagEnd);
      return {line, std::move(statement)};
    }
    if (tokens_.at_operator("|")) tokens_.fail_unsupported("a filter on a set block");
    tokens_.expect(TokenKind::kTagEnd);
    return {line, SetBlock{std::move(target), parse_closed_body("endset")}};
  }

  std::string parse_namespace_attribute() {
    const std::string name = tokens_.expect_any_name();
    if (name.starts_with('_')) tokens_.fail_unsupported("the private attribute ." + name);
    return name;
  }

  Macro parse_macro() {
    Macro macro;
    macro.name = parse_new_name();
    macro.parameters = parse_parameters();
    tokens_.expect(TokenKind::kTagEnd);
    parse_macro_body(macro, "endmacro");
    return macro;
  }

  std::vector<Parameter> parse_parameters() {
    tokens_.expect_operator("(");
    std::vector<Parameter> parameters;
    while (!tokens_.skip_operator(")")) {
      if (!parameters.empty()) tokens_.expect_operator(",");
      if (tokens_.at_operator("*") || tokens_.at_operator("**")) tokens_.fail_unsupported("a * parameter");
      Parameter parameter{parse_new_name(), nullptr};
      if (tokens_.skip_operator("=")) {
        parameter.fallback = expressions_.parse();
      } else if (!parameters.empty() && parameters.back().fallback != nullptr) {
        tokens_.fail("a parameter without default follows one with a default");
      }
      parameters.push_back(std::move(parameter));
    }
    return parameters;
  }

  // A body whose output is collected: outer loops cannot be left from it.
  Body parse_closed_body(std::string_view end_tag) {
    const int outer_loops = std::exchange(open_loops_, 0);
    Body body = parse_body_and_end(end_tag);
    open_loops_ = outer_loops;
    return body;
  }

  void parse_macro_body(Macro& macro, std::string_view end_tag) {
    const bool outer_saw_caller = expressions_.saw_caller();
    expressions_.set_saw_caller(false);
    macro.body = parse_closed_body(end_tag);
    macro.uses_caller = expressions_.saw_caller();
    expressions_.set_saw_caller(outer_saw_caller);
  }

  CallBlock parse_call_block() {
    CallBlock block;
    block.caller.name = "caller";
    if (tokens_.at_operator("(")) block.caller.parameters = parse_parameters();
    block.call = expressions_.parse();
    if (!std::holds_alternative<Call>(block.call->node)) tokens_.fail("a call block needs a call");
    tokens_.expect(TokenKind::kTagEnd);
    parse_macro_body(block.caller, "endcall");
    return block;
  }

  Generation parse_generation() {
    tokens_.expect(TokenKind::kTagEnd);
    return {parse_closed_body("endgeneration")};
  }

  template <typename Control>
  Control parse_loop_control(Control control, const std::string& name) {
    if (open_loops_ == 0) tokens_.fail(name + " outside a for loop");
    tokens_.expect(TokenKind::kTagEnd);
    return control;
  }

  TokenCursor tokens_;
  ExpressionParser expressions_;
  int nesting_ = 0;
  int open_loops_ = 0;
};

}  // namespace

Body parse_template(std::string_view source) { return Parser(source).parse(); }

}  // namespace skipper::jinja
