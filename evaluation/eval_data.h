// Held-out texts and questions of an evaluation directory.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace skipper {

struct EvalText {
  std::string name;  // file name without .txt
  std::string text;
};

struct EvalQuestion {
  std::string task;
  std::string question;
  std::string answer;
  std::filesystem::path image;  // empty for a question without a picture
};

struct EvalData {
  std::vector<EvalText> texts;
  std::vector<EvalQuestion> vqa;
  std::vector<EvalQuestion> chat;
};

// Reads every *.txt (in name order), vqa.jsonl ({"task","image","question","answer"} a line, the image's path relative to the
// directory) and chat.jsonl (the same without image). Each file may be missing, but not all. Throws InvalidFile naming file
// and line.
EvalData load_eval_data(const std::filesystem::path& directory);

// One file of questions, with or without pictures, as in vqa.jsonl and chat.jsonl. Throws InvalidFile naming file and line.
std::vector<EvalQuestion> load_questions(const std::filesystem::path& path);

// The whole file. Throws InvalidFile when it cannot be read.
std::string read_file(const std::filesystem::path& path);

}  // namespace skipper
