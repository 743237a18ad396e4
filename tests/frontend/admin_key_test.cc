#include "frontend/admin_key.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>

#include "base/error.h"

namespace skipper {
namespace {

using ::testing::HasSubstr;

std::filesystem::path file_with(const std::string& text, mode_t mode = 0600) {
  const std::filesystem::path path = std::filesystem::path(testing::TempDir()) / "skipper_admin_key";
  std::filesystem::remove(path);
  std::ofstream(path) << text;
  chmod(path.c_str(), mode);
  return path;
}

std::string refusal(const std::filesystem::path& path) {
  try {
    AdminKey::load(path);
  } catch (const InvalidFile& error) {
    return error.what();
  }
  return "ACCEPTED";
}

TEST(AdminKey, OpensForItsKeyAlone) {
  const AdminKey key("correct-horse");
  EXPECT_TRUE(key.opens_for("Bearer correct-horse"));
  for (const char* wrong : {"", "Bearer ", "Bearer", "correct-horse", "Bearer correct-hors", "Bearer correct-horsf",
                            "Bearer correct-horsecorrect-horse", "Bearer correct-horse ", "Basic correct-horse", "bearer x"}) {
    EXPECT_FALSE(key.opens_for(wrong)) << wrong;
  }
}

TEST(AdminKey, TakesTheFirstLineOfAFile) {
  EXPECT_TRUE(AdminKey::load(file_with("secret\n")).opens_for("Bearer secret"));
  EXPECT_TRUE(AdminKey::load(file_with("secret\r\nmore")).opens_for("Bearer secret"));
  EXPECT_TRUE(AdminKey::load(file_with("s", 0640)).opens_for("Bearer s"));
}

TEST(AdminKey, RefusesFilesThatProtectNothing) {
  EXPECT_THAT(refusal("/nowhere/key"), HasSubstr("/nowhere/key: No such file"));
  EXPECT_THAT(refusal(file_with("")), HasSubstr("is empty"));
  EXPECT_THAT(refusal(file_with("\nsecret")), HasSubstr("is empty"));
  EXPECT_THAT(refusal(file_with("secret\n", 0644)), HasSubstr("every user of this host can read it; run: chmod 600"));
  EXPECT_THAT(refusal(file_with("two words")), HasSubstr("blanks"));
  EXPECT_THAT(refusal(file_with("\xc3\xa4")), HasSubstr("ASCII"));
  EXPECT_THAT(refusal(file_with(std::string(1025, 'a'))), HasSubstr("more than 1024 bytes"));
  EXPECT_THAT(refusal(testing::TempDir()), testing::Not(HasSubstr("ACCEPTED")));
}

}  // namespace
}  // namespace skipper
