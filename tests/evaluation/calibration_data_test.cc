#include "evaluation/calibration_data.h"

#include <gmock/gmock.h>

#include <fstream>

#include "base/error.h"

namespace skipper {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class CalibrationDataTest : public testing::Test {
 protected:
  CalibrationDataTest() : directory_(fs::path(testing::TempDir()) / "calibration_data_test") {
    fs::create_directory(directory_);
  }
  ~CalibrationDataTest() override { fs::remove_all(directory_); }

  fs::path write(const std::string& name, const std::string& content) const {
    std::ofstream(directory_ / name) << content;
    return directory_ / name;
  }

  CalibrationData load(const fs::path& path, int64_t limit = 1000) const {
    return load_calibration_data(path, limit, tokenizer_);
  }

  std::string error(const fs::path& path) const {
    try {
      load(path);
    } catch (const InvalidFile& e) {
      return e.what();
    }
    return "accepted";
  }

  fs::path directory_;
  BpeTokenizer tokenizer_{fs::path(SKIPPER_SOURCE_DIR) / "models/demo"};
};

TEST_F(CalibrationDataTest, HoldsQuestionsWithAndWithoutPicturesOfOneFile) {
  write("p.jpg", "x");
  const fs::path file = write("mixed.jsonl", R"({"task": "t", "image": "p.jpg", "question": "q?", "answer": "a"})" "\n\n"
                                             R"({"task": "u", "question": "r?", "answer": "b"})");
  const CalibrationData data = load(file);
  ASSERT_EQ(data.samples.size(), 2u);
  EXPECT_EQ(data.samples[0].question.image, directory_ / "p.jpg");
  EXPECT_TRUE(data.samples[1].question.image.empty());
  EXPECT_EQ(data.samples[1].question.answer, "b");
  EXPECT_TRUE(data.samples[1].text_ids.empty());
}

TEST_F(CalibrationDataTest, CutsTextsIntoWindows) {
  std::string text;
  for (int i = 0; i < 1500; ++i) text += "x\n\n7 ";
  const fs::path file = write("text.txt", text);
  const std::vector<int32_t> ids = tokenizer_.encode(text, SpecialTokens::kParse);
  std::vector<int32_t> joined;
  for (const CalibrationSample& sample : load(file).samples) {
    EXPECT_LE(static_cast<int64_t>(sample.text_ids.size()), kCalibrationWindow);
    joined.insert(joined.end(), sample.text_ids.begin(), sample.text_ids.end());
  }
  EXPECT_GT(ids.size(), 512u);
  EXPECT_EQ(joined, ids);
}

TEST_F(CalibrationDataTest, SpreadsALimitEvenly) {
  std::string lines;
  for (char answer = 'a'; answer <= 'g'; ++answer) {
    lines += R"({"task": "t", "question": "q", "answer": ")" + std::string(1, answer) + "\"}\n";
  }
  const fs::path file = write("seven.jsonl", lines);
  const auto answers = [&](int64_t limit) {
    std::string all;
    for (const CalibrationSample& sample : load(file, limit).samples) all += sample.question.answer;
    return all;
  };
  EXPECT_EQ(answers(1), "a");
  EXPECT_EQ(answers(3), "ace");
  EXPECT_EQ(answers(7), "abcdefg");
  EXPECT_EQ(answers(100), "abcdefg");
}

TEST_F(CalibrationDataTest, NamesWhatIsWrong) {
  EXPECT_THAT(error(directory_ / "gone"), HasSubstr("gone: does not exist; give a file"));
  EXPECT_THAT(error(write("empty.jsonl", "\n")), HasSubstr("empty.jsonl: holds no sample"));
  EXPECT_THAT(error(write("empty.txt", "")), HasSubstr("empty.txt: holds no sample"));
  EXPECT_THAT(error(write("bad.jsonl", "\n{\"task\":")), HasSubstr("bad.jsonl:2: not valid JSON"));
  EXPECT_THAT(error(write("bytes.txt", "\xff\xfe")), HasSubstr("bytes.txt: text bytes: "));
}

}  // namespace
}  // namespace skipper
