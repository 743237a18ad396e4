// The fixtures of tools/make_tokenizer_fixtures.py.
#pragma once

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace skipper {

// A tokenizer with the texts and ids that Hugging Face gives for it.
struct TokenizerFixture {
  const char* name;
  bool is_model;  // in models/, else beside its cases

  std::filesystem::path case_directory() const {
    return std::filesystem::path(SKIPPER_SOURCE_DIR) / "tests/processor/fixtures/tokenizer" / name;
  }
  std::filesystem::path model_directory() const {
    return is_model ? std::filesystem::path(SKIPPER_SOURCE_DIR) / "models" / name : case_directory();
  }
  nlohmann::json cases() const {
    std::ifstream file(case_directory() / "cases.json");
    return nlohmann::json::parse(file);
  }
};

inline const std::vector<TokenizerFixture> kTokenizerFixtures = {
    {"demo", true}, {"gpt2_style", false}, {"llama3_style", false}, {"deepseek_style", false}};

}  // namespace skipper
