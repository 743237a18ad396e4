#include "evaluation/eval_data.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "base/error.h"

namespace skipper {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class EvalDataTest : public testing::Test {
 protected:
  void SetUp() override {
    directory_ = fs::path(testing::TempDir()) / "eval_data_test";
    fs::remove_all(directory_);
    fs::create_directories(directory_);
  }
  void write(const std::string& name, const std::string& content) const { std::ofstream(directory_ / name) << content; }
  std::string error() const {
    try {
      load_eval_data(directory_);
    } catch (const InvalidFile& e) {
      return e.what();
    }
    return "accepted";
  }

  fs::path directory_;
};

TEST_F(EvalDataTest, ReadsTextsInNameOrderAndQuestions) {
  write("b.txt", "two");
  write("a.txt", "one");
  write("p.jpg", "x");
  write("vqa.jsonl", R"({"task": "t", "image": "p.jpg", "question": "q?", "answer": "a"})" "\n\n");
  write("chat.jsonl", R"({"task": "u", "question": "r?", "answer": "b"})" "\n");
  const EvalData data = load_eval_data(directory_);
  ASSERT_EQ(data.texts.size(), 2u);
  EXPECT_EQ(data.texts[0].name, "a");
  EXPECT_EQ(data.texts[1].text, "two");
  ASSERT_EQ(data.vqa.size(), 1u);
  EXPECT_EQ(data.vqa[0].image, directory_ / "p.jpg");
  ASSERT_EQ(data.chat.size(), 1u);
  EXPECT_EQ(data.chat[0].answer, "b");
}

TEST_F(EvalDataTest, NamesFileLineAndWhatIsWrong) {
  EXPECT_THAT(error(), HasSubstr("nothing to evaluate"));
  write("chat.jsonl", "{\"task\": \"t\", \"question\": \"q\", \"answer\": \"a\"}\n{\"task\": 3}\n");
  EXPECT_THAT(error(), HasSubstr("chat.jsonl:2: task: expected a string, found 3"));
  write("chat.jsonl", "{");
  EXPECT_THAT(error(), HasSubstr("chat.jsonl:1: not valid JSON"));
  fs::remove(directory_ / "chat.jsonl");
  write("vqa.jsonl", R"({"task": "t", "image": "gone.jpg", "question": "q", "answer": "a"})");
  EXPECT_THAT(error(), HasSubstr("gone.jpg is not a file"));
  directory_ /= "nowhere";
  EXPECT_THAT(error(), HasSubstr("is not a directory"));
}

}  // namespace
}  // namespace skipper
