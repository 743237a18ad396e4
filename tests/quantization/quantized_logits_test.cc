// A quantised checkpoint is the original quantised while it is loaded: the same logits, bit for bit.
#include <gtest/gtest.h>

#include "tests/model/prompt_fixture.h"
#include "tests/model/sequence_runner.h"
#include "tests/quantization/quantized_copy.h"

namespace skipper {
namespace {

struct Formats {
  std::string experts;
  std::string dense;  // empty: as in the checkpoint
};

class QuantizedLogits : public testing::TestWithParam<Formats> {
 protected:
  static RunFormats at_load() {
    RunFormats formats{.num_threads = 2};
    formats.weights.experts = parse_weight_format(GetParam().experts, "experts");
    if (!GetParam().dense.empty()) formats.weights.dense = parse_weight_format(GetParam().dense, "dense");
    return formats;
  }

  static RunFormats mapped() { return {.weights = {.residence = WeightResidence::kMapped}, .num_threads = 2}; }

  static void expect_same_bits(const std::filesystem::path& model, const TestSequence& sequence) {
    const QuantizedCopy copy(model, GetParam().experts, GetParam().dense);
    const std::vector<float> expected = logits_alone(model, sequence, at_load());
    ASSERT_FALSE(expected.empty());
    EXPECT_TRUE(logits_alone(copy.path(), sequence, {.num_threads = 2}) == expected);
    EXPECT_TRUE(logits_alone(copy.path(), sequence, at_load()) == expected) << "its formats may be asked for again";
    EXPECT_TRUE(logits_alone(copy.path(), sequence, mapped()) == expected) << "used in place";
  }
};

TEST_P(QuantizedLogits, AreThoseOfFormatsChosenAtLoadForFusedExperts) {
  expect_same_bits(demo_model(), sequence_of(read_prompts(model_fixture("demo_text.safetensors")).front()));
}

TEST_P(QuantizedLogits, AreThoseOfFormatsChosenAtLoadForSeparateExpertsAndDenseLayers) {
  expect_same_bits(model_fixture("tiny_qwen3_moe"),
                   sequence_of(read_prompts(model_fixture("tiny_qwen3_moe.safetensors")).front()));
}

INSTANTIATE_TEST_SUITE_P(Formats, QuantizedLogits,
                         testing::Values(Formats{"bf16", ""}, Formats{"int8-g64", "int8-g64"}, Formats{"int4a-g32", "int4-g128"},
                                         Formats{"int3a-g64", "bf16"}, Formats{"int2a-g32", ""}),
                         [](const auto& info) {
                           std::string name = info.param.experts + (info.param.dense.empty() ? "" : "_with_") + info.param.dense;
                           std::ranges::replace(name, '-', '_');
                           return name;
                         });

TEST(QuantizedCheckpoint, HasOtherLogitsThanItsOriginal) {
  const TestSequence sequence = sequence_of(read_prompts(model_fixture("tiny_qwen3_moe.safetensors")).front());
  const QuantizedCopy copy(model_fixture("tiny_qwen3_moe"), "int2a-g128", "");
  EXPECT_FALSE(logits_alone(copy.path(), sequence) == logits_alone(model_fixture("tiny_qwen3_moe"), sequence));
}

}  // namespace
}  // namespace skipper
