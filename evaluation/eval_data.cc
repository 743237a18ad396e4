#include "evaluation/eval_data.h"

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/error.h"
#include "base/json_fields.h"

namespace skipper {
namespace {

namespace fs = std::filesystem;

enum class HasImage { kNo, kYes, kMaybe };

EvalQuestion parse_question(const std::string& line, const std::string& where, const fs::path& directory, HasImage image) {
  const nlohmann::json object = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (object.is_discarded()) throw InvalidFile(where + ": not valid JSON");
  const JsonFields fields(object, where);
  EvalQuestion question;
  question.task = fields.required_string("task");
  question.question = fields.required_string("question");
  question.answer = fields.required_string("answer");
  if (image == HasImage::kNo || (image == HasImage::kMaybe && !fields.has("image"))) return question;
  question.image = directory / fields.required_string("image");
  if (!fs::is_regular_file(question.image)) fields.fail("image", question.image.string() + " is not a file");
  return question;
}

std::vector<EvalQuestion> load_questions(const fs::path& path, HasImage image) {
  std::vector<EvalQuestion> questions;
  std::istringstream lines(read_file(path));
  std::string line;
  for (int number = 1; std::getline(lines, line); ++number) {
    if (line.empty()) continue;
    questions.push_back(parse_question(line, path.string() + ":" + std::to_string(number), path.parent_path(), image));
  }
  return questions;
}

// None where the file is missing.
std::vector<EvalQuestion> load_questions_if_any(const fs::path& path, HasImage image) {
  return fs::exists(path) ? load_questions(path, image) : std::vector<EvalQuestion>();
}

}  // namespace

std::vector<EvalQuestion> load_questions(const fs::path& path) { return load_questions(path, HasImage::kMaybe); }

std::string read_file(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream content;
  content << file.rdbuf();
  if (!file) throw InvalidFile(path.string() + ": cannot be read; check the path and its permissions");
  return content.str();
}

EvalData load_eval_data(const fs::path& directory) {
  if (!fs::is_directory(directory)) {
    throw InvalidFile(directory.string() + ": is not a directory; give --data a folder of texts and questions");
  }
  EvalData data;
  for (const fs::directory_entry& entry : fs::directory_iterator(directory)) {
    if (entry.path().extension() != ".txt") continue;
    data.texts.push_back({entry.path().stem().string(), read_file(entry.path())});
  }
  std::sort(data.texts.begin(), data.texts.end(), [](const EvalText& a, const EvalText& b) { return a.name < b.name; });
  data.vqa = load_questions_if_any(directory / "vqa.jsonl", HasImage::kYes);
  data.chat = load_questions_if_any(directory / "chat.jsonl", HasImage::kNo);
  if (data.texts.empty() && data.vqa.empty() && data.chat.empty()) {
    throw InvalidFile(directory.string() + ": has no *.txt, vqa.jsonl or chat.jsonl; nothing to evaluate");
  }
  return data;
}

}  // namespace skipper
