// The templates rendered by Python's jinja2 with transformers' settings (tools/make_chat_template_fixtures.py).
#pragma once

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "jinja/value.h"
#include "jinja/value_json.h"

namespace skipper::jinja {

struct TemplateCase {
  std::string name;
  std::string source;
  nlohmann::ordered_json outcome;  // has one of "expected", "raised", "fails"
};

inline nlohmann::ordered_json read_template_cases() {
  std::ifstream file(std::string(SKIPPER_SOURCE_DIR) + "/tests/jinja/fixtures/template_cases.json");
  return nlohmann::ordered_json::parse(file);
}

inline std::vector<TemplateCase> all_template_cases() {
  std::vector<TemplateCase> cases;
  const auto fixture = read_template_cases();
  for (const auto& entry : fixture.at("cases")) cases.push_back({entry.at("name"), entry.at("template"), entry});
  return cases;
}

inline Map template_case_context() {
  const auto fixture = read_template_cases();
  Map context;
  for (const auto& [name, value] : fixture.at("context").items()) context.set(name, value_from_json(value));
  return context;
}

}  // namespace skipper::jinja
