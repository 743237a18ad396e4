#include "planning/precision_profile.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <numeric>

#include "base/error.h"

namespace skipper {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;

const ProfileShape kShape{"0123456789abcdef", 2, 3};
const WeightFormat kInt8{WeightKind::kInt8, 64}, kInt4{WeightKind::kInt4, 64};

PrecisionProfile some_profile() {
  PrecisionProfile profile;
  profile.model_fingerprint = kShape.model_fingerprint;
  profile.data = {.name = "calibration", .hash = "ff", .num_tokens = 1000};
  profile.token_share[0] = {0.5, 0.25};
  profile.token_share[1] = {0.25, 0.0};
  profile.formats = {kInt4, kInt8};
  profile.layers.resize(2);
  for (size_t l = 0; l < 2; ++l) {
    profile.layers[l].kappa = 1.0 + static_cast<double>(l);
    for (size_t e = 0; e < 3; ++e) {
      ExpertSensitivity expert;
      expert.use[0] = {0.1 * static_cast<double>(e + 1), 0.2};
      expert.use[1] = {0.4, 0.0};
      expert.error = {0.5, 0.01 * static_cast<double>(e)};
      profile.layers[l].experts.push_back(expert);
    }
  }
  return profile;
}

std::string write(const std::string& text) {
  const std::string path = testing::TempDir() + "/profile.json";
  std::ofstream(path) << text;
  return path;
}

std::string error_after(const std::function<void(json&)>& edit) {
  json file = json::parse(to_json(some_profile()));
  edit(file);
  const std::string path = write(file.dump());
  try {
    load_precision_profile(path, kShape);
  } catch (const InvalidFile& error) {
    return error.what();
  }
  return "no error";
}

TEST(PrecisionProfile, ReadsWhatItWrote) {
  PrecisionProfile profile = some_profile();
  profile.uniform_loss = {0.5, 0.125};
  profile.additive_fit = {.r_squared = 0.75, .num_plans = 30};
  const std::string text = to_json(profile);
  const PrecisionProfile read = load_precision_profile(write(text), kShape);
  EXPECT_EQ(to_json(read), text);
  EXPECT_EQ(read.basis, ProfileBasis::kMeasured);
  EXPECT_EQ(read.formats, profile.formats);
  EXPECT_EQ(read.at({1, 2}).use, profile.at({1, 2}).use);
  EXPECT_EQ(read.at({1, 2}).error, profile.at({1, 2}).error);
  EXPECT_EQ(read.additive_fit->num_plans, 30);
}

TEST(PrecisionProfile, NamesTheLevelThatItWasMeasuredAt) {
  PrecisionProfile profile = some_profile();
  EXPECT_EQ(json::parse(to_json(profile))["version"], 1);
  EXPECT_FALSE(load_precision_profile(write(to_json(profile)), kShape).operating_point);
  for (const std::string point : {"", "0123456789abcdef"}) {
    profile.operating_point = point;
    EXPECT_EQ(json::parse(to_json(profile))["version"], 2);
    EXPECT_EQ(load_precision_profile(write(to_json(profile)), kShape).operating_point, point);
  }
  EXPECT_THAT(error_after([](json& file) { file["operating_point"] = ""; }), HasSubstr("operating_point: unknown key"));
  EXPECT_THAT(error_after([](json& file) { file["version"] = 2; }), HasSubstr("operating_point"));
  EXPECT_THAT(error_after([](json& file) { file.update({{"version", 2}, {"operating_point", "point.json"}}); }),
              HasSubstr("'point.json' is neither empty nor 16 hexadecimal digits"));
}

TEST(PrecisionProfile, WeighsUseByTheSharesOfClassesAndPhases) {
  PrecisionProfile profile = some_profile();
  EXPECT_DOUBLE_EQ(profile.use_of({0, 1}), 0.5 * 0.2 + 0.25 * 0.2 + 0.25 * 0.4);
  EXPECT_DOUBLE_EQ(profile.decode_use_of({0, 1}), 0.2);
  profile.token_share[0] = {0.75, 0.0};
  EXPECT_DOUBLE_EQ(profile.decode_use_of({0, 1}), profile.use_of({0, 1}));
}

TEST(PrecisionProfile, SumsLossesToWhatUniformFormatsWereMeasuredToLose) {
  PrecisionProfile profile = some_profile();
  const std::vector<double> plain = expert_losses(profile, kInt8);
  ASSERT_EQ(plain.size(), 6u);
  EXPECT_DOUBLE_EQ(plain[5], 2.0 * profile.use_of({1, 2}) * 0.02);
  profile.uniform_loss = {0.5, 0.125};
  const std::vector<double> scaled = expert_losses(profile, kInt8);
  EXPECT_NEAR(std::accumulate(scaled.begin(), scaled.end(), 0.0), 0.125, 1e-12);
  EXPECT_NEAR(scaled[5] / scaled[1], plain[5] / plain[1], 1e-12);
  EXPECT_EQ(expert_losses(profile, {}), std::vector<double>(6, 0.0));
}

TEST(PrecisionProfile, LosesNothingWhereNoErrorWasFound) {
  PrecisionProfile profile = some_profile();
  profile.uniform_loss = {0.5, 0.125};
  for (LayerSensitivity& layer : profile.layers) layer.kappa = 0.0;
  EXPECT_EQ(expert_losses(profile, kInt8), std::vector<double>(6, 0.0));
}

TEST(PrecisionProfile, RefusesAnotherModelWithBothNames) {
  EXPECT_THAT(error_after([](json& file) { file["model_fingerprint"] = "00"; }),
              AllOf(HasSubstr("model 00"), HasSubstr("0123456789abcdef")));
  EXPECT_THAT(error_after([](json& file) { file["num_experts"] = 4; }), HasSubstr("num_experts: 4, but the model has 3"));
  EXPECT_THAT(error_after([](json& file) { file["layers"].erase(0); }), HasSubstr("each of 2 MoE layers"));
}

TEST(PrecisionProfile, NamesTheKeyOfWhatIsWrong) {
  EXPECT_THAT(error_after([](json& file) { file["kapa"] = 1; }), HasSubstr("kapa: unknown key"));
  EXPECT_THAT(error_after([](json& file) { file["layers"][1]["kappa"] = -1; }), HasSubstr("layers[1]: kappa: -1"));
  EXPECT_THAT(error_after([](json& file) { file["layers"][1]["error"]["int4-g64"].erase(0); }),
              HasSubstr("layers[1]: error: int4-g64: has 2 numbers for 3 experts"));
  EXPECT_THAT(error_after([](json& file) { file["layers"][1]["error"].erase("int8-g64"); }),
              HasSubstr("layers[1]: error: int8-g64: has 0 numbers"));
  EXPECT_THAT(error_after([](json& file) { file["layers"][1]["error"]["int2a-g32"] = {1, 2, 3}; }), HasSubstr("unknown key"));
  EXPECT_THAT(error_after([](json& file) { file["layers"][0]["error"]["bf16"] = {1, 2, 3}; }), HasSubstr("bf16: is no rounded"));
  EXPECT_THAT(error_after([](json& file) { file["layers"][0]["error"]["int7"] = {1, 2, 3}; }), HasSubstr("int7"));
  EXPECT_THAT(error_after([](json& file) { file["layers"][0]["use"]["text"]["prompt"][0] = 1.5; }),
              HasSubstr("use: text: prompt"));
  EXPECT_THAT(error_after([](json& file) { file["token_share"]["text"]["prompt"] = 0.6; }), HasSubstr("expected 1"));
  EXPECT_THAT(error_after([](json& file) { file["uniform_loss"] = {{"int8-g64", 0.1}}; }), HasSubstr("int4-g64: is missing"));
  EXPECT_THAT(error_after([](json& file) { file["uniform_loss"] = {{"bf16", 0.1}}; }), HasSubstr("bf16: 0.1"));
}

}  // namespace
}  // namespace skipper
