#include "engine/reference_file.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "base/error.h"

namespace skipper {
namespace {

namespace fs = std::filesystem;

class ReferenceFile : public testing::Test {
 protected:
  ReferenceFile() {
    fs::create_directories(folder_);
    ReferenceStore first, second;
    first.put(4, {1.5f, -2.0f, 0.0f});
    first.put(2, {});
    second.put(5, {7.0f});
    save_references(first, path_, "model a, data b", {0, 2});
    save_references(second, path_, "model a, data b", {1, 2});
  }
  ~ReferenceFile() override { fs::remove_all(folder_); }

  std::string refusal(const std::string& origin) const {
    ReferenceStore store;
    try {
      load_references(store, path_, origin, [](uint64_t) { return true; });
    } catch (const InvalidFile& error) {
      return error.what();
    }
    return "";
  }

  const fs::path folder_ = fs::path(testing::TempDir()) / testing::UnitTest::GetInstance()->current_test_info()->name();
  const fs::path path_ = folder_ / "references";
};

TEST_F(ReferenceFile, GivesEveryRankItsOwnOfAllThatWrote) {
  ReferenceStore store;
  load_references(store, path_, "model a, data b", [](uint64_t id) { return id != 4; });
  EXPECT_EQ(store.references(), (std::map<uint64_t, std::vector<float>>{{2, {}}, {5, {7.0f}}}));
  load_references(store, path_, "model a, data b", [](uint64_t id) { return id == 4; });
  EXPECT_EQ(store.references().at(4), (std::vector<float>{1.5f, -2.0f, 0.0f}));
}

TEST_F(ReferenceFile, RefusesAnotherOrigin) {
  EXPECT_NE(refusal("model c, data b").find("of model a, data b, but these are of model c, data b"), std::string::npos);
}

TEST_F(ReferenceFile, RefusesWhatIsCutShort) {
  const fs::path last = path_.string() + ".rank1";
  fs::resize_file(last, fs::file_size(last) - 1);
  EXPECT_NE(refusal("model a, data b").find("cut short"), std::string::npos);
  fs::resize_file(last, fs::file_size(last) - 6);
  EXPECT_NE(refusal("model a, data b").find("cut short"), std::string::npos);
}

TEST_F(ReferenceFile, RefusesMissingAndForeignFiles) {
  std::ofstream(path_.string() + ".rank1") << "something else\n";
  EXPECT_NE(refusal("model a, data b").find("is no file of --save_reference"), std::string::npos);
  fs::remove(path_.string() + ".rank1");
  EXPECT_NE(refusal("model a, data b").find("rank1: cannot be opened"), std::string::npos);
}

}  // namespace
}  // namespace skipper
