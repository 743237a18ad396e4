#include "launcher/generation_defaults.h"

#include <gtest/gtest.h>

#include <fstream>

#include "base/error.h"

namespace skipper {
namespace {

std::filesystem::path directory_with(const std::string& json) {
  const std::filesystem::path directory = std::filesystem::path(testing::TempDir()) / "generation_defaults";
  std::filesystem::create_directories(directory);
  std::ofstream(directory / "generation_config.json") << json;
  return directory;
}

TEST(GenerationDefaults, DoSampleFalseIsGreedy) {
  EXPECT_EQ(read_generation_defaults(directory_with(R"({"do_sample": false, "temperature": 0.7})")).temperature, 0.0);
}

TEST(GenerationDefaults, TakesTheCheckpointsValues) {
  const GenerationDefaults defaults =
      read_generation_defaults(directory_with(R"({"do_sample": true, "temperature": 0.7, "top_p": 0.8, "top_k": 20, "x": 1})"));
  EXPECT_EQ(defaults.temperature, 0.7);
  EXPECT_EQ(defaults.top_p, 0.8);
  EXPECT_EQ(defaults.top_k, 20);
}

TEST(GenerationDefaults, WithoutAFileTheyAreOpenAIs) {
  const GenerationDefaults defaults = read_generation_defaults("/nonexistent");
  EXPECT_EQ(defaults.temperature, 1.0);
  EXPECT_EQ(defaults.top_k, 0);
}

TEST(GenerationDefaults, RefusesNonsenseByName) {
  EXPECT_THROW(read_generation_defaults(directory_with(R"({"top_p": 3})")), InvalidFile);
}

}  // namespace
}  // namespace skipper
