#include "kernels/group_quantizer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "kernels/cpu/instruction_set.h"

namespace skipper {
namespace {

const WeightFormat kFormats[] = {{WeightKind::kInt8, 64},
                                 {WeightKind::kInt4, 32},
                                 {WeightKind::kInt4Asymmetric, 64},
                                 {WeightKind::kInt3Asymmetric, 128},
                                 {WeightKind::kInt2Asymmetric, 32}};

std::vector<float> normal_weights(size_t count, uint32_t seed, float mean = 0) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(mean);
  std::vector<float> weights(count);
  for (float& weight : weights) weight = normal(generator);
  return weights;
}

struct Quantised {
  GroupCodes group;
  std::vector<uint8_t> codes;
  float value(size_t i) const { return static_cast<float>(group.scale) * static_cast<float>(codes[i] - group.zero); }
};

Quantised quantise(const std::vector<float>& weights, const WeightFormat& format, const std::vector<float>& importance = {}) {
  Quantised result{{}, std::vector<uint8_t>(weights.size())};
  result.group = quantize_group(weights, importance, format, result.codes);
  return result;
}

double error_of(const Quantised& quantised, const std::vector<float>& weights, const std::vector<float>& importance = {}) {
  double error = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    const double difference = double{weights[i]} - double{quantised.value(i)};
    error += (importance.empty() ? 1.0 : double{importance[i]}) * difference * difference;
  }
  return error;
}

class GroupQuantizer : public testing::TestWithParam<WeightFormat> {
 protected:
  int highest_code() const { return (1 << GetParam().bits_per_code()) - 1; }
  int lowest_code() const { return GetParam().kind == WeightKind::kInt8 ? 1 : 0; }
};

TEST_P(GroupQuantizer, ErrsByHalfAStepAtMostWhereNothingIsClipped) {
  for (const size_t count : {1u, 2u, 7u, 31u, 32u}) {
    for (uint32_t seed = 0; seed < 50; ++seed) {
      const std::vector<float> weights = normal_weights(count, seed, static_cast<float>(seed % 3) - 1.0f);
      const Quantised quantised = quantise(weights, GetParam());
      const double step = std::abs(double{static_cast<float>(quantised.group.scale)});
      for (size_t i = 0; i < count; ++i) {
        ASSERT_GE(quantised.codes[i], lowest_code());
        ASSERT_LE(quantised.codes[i], highest_code());
        const bool at_end = quantised.codes[i] == 0 || quantised.codes[i] == highest_code();
        if (at_end && GetParam().kind != WeightKind::kInt8) continue;
        ASSERT_LE(std::abs(weights[i] - double{quantised.value(i)}), 0.5 * step * (1 + 1e-6));
      }
    }
  }
}

TEST_P(GroupQuantizer, GivesTheNearestCodeOfItsScale) {
  const std::vector<float> weights = normal_weights(32, 1);
  const Quantised quantised = quantise(weights, GetParam());
  const double scale = double{static_cast<float>(quantised.group.scale)};
  for (size_t i = 0; i < weights.size(); ++i) {
    const double actual = std::abs(weights[i] - scale * (quantised.codes[i] - quantised.group.zero));
    for (int code = lowest_code(); code <= highest_code(); ++code) {
      EXPECT_LE(actual, std::abs(weights[i] - scale * (code - quantised.group.zero)) + 1e-6 * std::abs(scale)) << code;
    }
  }
}

TEST_P(GroupQuantizer, KeepsZeroExactly) {
  for (const float mean : {-3.0f, 0.0f, 3.0f}) {
    std::vector<float> weights = normal_weights(32, 2, mean);
    weights[5] = 0;
    weights[17] = -0.0f;
    const Quantised quantised = quantise(weights, GetParam());
    EXPECT_LE(quantised.group.zero, highest_code());
    EXPECT_EQ(quantised.value(5), 0.0f);
    EXPECT_EQ(quantised.value(17), 0.0f);
    if (!GetParam().is_asymmetric()) {
      EXPECT_EQ(quantised.group.zero, (highest_code() + 1) / 2);
    }
  }
}

TEST_P(GroupQuantizer, GivesScaleZeroToAGroupOfZeros) {
  const std::vector<float> zeros(32, 0.0f), negative_zeros(3, -0.0f), denormals(32, 1e-42f);
  for (const std::vector<float>& weights : {zeros, negative_zeros, denormals}) {
    const Quantised quantised = quantise(weights, GetParam());
    for (size_t i = 0; i < weights.size(); ++i) EXPECT_NEAR(quantised.value(i), weights[i], 1e-41);
    if (weights[0] == 0) {
      EXPECT_EQ(static_cast<float>(quantised.group.scale), 0.0f);
    }
  }
}

TEST_P(GroupQuantizer, TakesNoWeightsAtAll) {
  const Quantised quantised = quantise({}, GetParam());
  EXPECT_EQ(static_cast<float>(quantised.group.scale), 0.0f);
}

TEST_P(GroupQuantizer, KeepsALoneOutlierOfEitherSign) {
  for (const float outlier : {100.0f, -100.0f}) {
    std::vector<float> weights = normal_weights(32, 3);
    for (float& weight : weights) weight *= 0.01f;
    weights[9] = outlier;
    EXPECT_NEAR(quantise(weights, GetParam()).value(9), outlier, 1.0);
  }
}

TEST_P(GroupQuantizer, StaysFiniteAtTheEndsOfTheFloatRange) {
  for (const float size : {1e-38f, 1e-30f, 1e30f, 1e38f}) {
    std::vector<float> weights = normal_weights(32, 4);
    for (float& weight : weights) weight *= size;
    const Quantised quantised = quantise(weights, GetParam());
    for (size_t i = 0; i < weights.size(); ++i) {
      // Four codes clip normal weights at half the largest.
      ASSERT_LE(std::abs(double{quantised.value(i)} - weights[i]), 1.6 * size) << size;
    }
  }
}

TEST_P(GroupQuantizer, GivesTheSameCodesOnEveryInstructionSet) {
  const std::vector<float> weights = normal_weights(32, 5), importance = normal_weights(32, 6, 10);
  const Quantised expected = quantise(weights, GetParam(), importance);
  for (const cpu::Isa isa : cpu::available_isas()) {
    cpu::IsaOverride override(isa);
    const Quantised actual = quantise(weights, GetParam(), importance);
    EXPECT_EQ(actual.codes, expected.codes) << name_of(isa);
    EXPECT_EQ(actual.group.scale.bits, expected.group.scale.bits) << name_of(isa);
    EXPECT_EQ(actual.group.zero, expected.group.zero) << name_of(isa);
  }
}

TEST_P(GroupQuantizer, EqualImportanceErrsNoMoreThanNone) {
  for (const size_t count : {1u, 29u, 32u}) {
    const std::vector<float> weights = normal_weights(count, 7), importance(count, 4.0f);
    const double with = error_of(quantise(weights, GetParam(), importance), weights);
    EXPECT_LE(with, error_of(quantise(weights, GetParam()), weights) * (1 + 1e-5));
  }
}

TEST_P(GroupQuantizer, ImportanceOfAnySizeKeepsScalesFinite) {
  const std::vector<float> weights = normal_weights(32, 8);
  for (const float size : {0.0f, 1e-38f, 1e30f, 1e38f}) {
    std::vector<float> importance(32, size);
    importance[3] = 0;
    const Quantised quantised = quantise(weights, GetParam(), importance);
    for (size_t i = 0; i < weights.size(); ++i) ASSERT_LE(std::abs(double{quantised.value(i)} - weights[i]), 3.0) << size;
  }
}

TEST_P(GroupQuantizer, ImportanceLowersTheWeightedError) {
  double weighted_error = 0, plain_error = 0;
  for (uint32_t seed = 0; seed < 30; ++seed) {
    const std::vector<float> weights = normal_weights(32, seed);
    std::vector<float> importance = normal_weights(32, seed + 100);
    for (float& weight : importance) weight = std::exp(3 * weight);
    const double with = error_of(quantise(weights, GetParam(), importance), weights, importance);
    const double without = error_of(quantise(weights, GetParam()), weights, importance);
    EXPECT_LE(with, without * (1 + 1e-5));
    weighted_error += with;
    plain_error += without;
  }
  EXPECT_LT(weighted_error, (GetParam().kind == WeightKind::kInt8 ? 0.99 : 0.85) * plain_error);
}

// Mean squared error of normal weights of variance 1, in groups of 32, against plain rounding to the range of the group:
// the margin of the candidates. Values of a NumPy search over all scales, + 2 %.
TEST(GroupQuantizerError, IsNearTheBestScale) {
  const std::pair<WeightFormat, double> bounds[] = {{{WeightKind::kInt8, 32}, 2.95e-5},
                                                    {{WeightKind::kInt4, 32}, 0.00671},
                                                    {{WeightKind::kInt4Asymmetric, 32}, 0.00634},
                                                    {{WeightKind::kInt3Asymmetric, 32}, 0.0265},
                                                    {{WeightKind::kInt2Asymmetric, 32}, 0.1125}};
  for (const auto& [format, bound] : bounds) {
    double error = 0;
    constexpr int kGroups = 4000;
    for (uint32_t seed = 0; seed < kGroups; ++seed) {
      const std::vector<float> weights = normal_weights(32, seed);
      error += error_of(quantise(weights, format), weights) / 32;
    }
    EXPECT_LT(error / kGroups, bound) << name_of(format);
    EXPECT_GT(error / kGroups, 0.9 * bound) << name_of(format);
  }
}

std::string format_name(const testing::TestParamInfo<WeightFormat>& info) {
  std::string name = name_of(info.param);
  std::ranges::replace(name, '-', '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(Formats, GroupQuantizer, testing::ValuesIn(kFormats), format_name);

}  // namespace
}  // namespace skipper
