#include "model/rotary_positions.h"

#include <gmock/gmock.h>

#include <cmath>

#include "base/error.h"
#include "model/rotary_embedding.h"
#include "tests/model/prompt_fixture.h"

namespace skipper {
namespace {

using testing::ElementsAre;
using testing::ElementsAreArray;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::ThrowsMessage;

class RotaryPositionsTest : public testing::Test {
 protected:
  std::vector<int32_t> positions(const std::vector<int32_t>& ids, const std::vector<ImageGrid>& images) {
    const RotaryPositions result = sequence_rotary_positions(ids, images, config_);
    next_ = result.next_position;
    const auto values = result.positions.span<int32_t>();
    return {values.begin(), values.end()};
  }

  ModelConfig config_ = load_model_config(demo_model());
  const int32_t image_ = config_.vision->image_token_id;
  int32_t next_ = -1;
};

TEST_F(RotaryPositionsTest, CountUpInText) {
  EXPECT_THAT(positions({5, 6}, {}), ElementsAre(0, 0, 0, 1, 1, 1));
  EXPECT_EQ(next_, 2);
  EXPECT_THAT(positions({}, {}), IsEmpty());
  EXPECT_EQ(next_, 0);
}

TEST_F(RotaryPositionsTest, FollowRowsAndColumnsOfAnImage) {
  const std::vector<int32_t> ids = {5, image_, image_, image_, image_, image_, image_, 7};
  EXPECT_THAT(positions(ids, {{1, 4, 6}}), ElementsAre(0, 0, 0,                                //
                                                       1, 1, 1, 1, 1, 2, 1, 1, 3,              //
                                                       1, 2, 1, 1, 2, 2, 1, 2, 3,              //
                                                       4, 4, 4));
  EXPECT_EQ(next_, 5);
}

TEST_F(RotaryPositionsTest, SeparateAdjacentImages) {
  EXPECT_THAT(positions({image_, image_, image_}, {{1, 2, 2}, {1, 4, 2}}), ElementsAre(0, 0, 0, 1, 1, 1, 1, 2, 1));
  EXPECT_EQ(next_, 3);
}

TEST_F(RotaryPositionsTest, EqualTransformersForImagePrompts) {
  const std::vector<PromptFixture> prompts = read_prompts(model_fixture("demo_images.safetensors"));
  ASSERT_GE(prompts.size(), 6u);
  for (const PromptFixture& prompt : prompts) {
    EXPECT_THAT(positions(prompt.token_ids, grids_of(prompt.images)), ElementsAreArray(prompt.rotary));
  }
}

TEST_F(RotaryPositionsTest, RefusePlaceholdersThatDisagreeWithTheImages) {
  EXPECT_THAT([&] { positions({image_}, {}); }, ThrowsMessage<InvalidRequest>(HasSubstr("none of its 0 images")));
  EXPECT_THAT([&] { positions({5}, {{1, 2, 2}}); }, ThrowsMessage<InvalidRequest>(HasSubstr("placeholders for 0")));
  EXPECT_THAT([&] { positions({image_, 5}, {{1, 4, 2}}); }, ThrowsMessage<InvalidRequest>(HasSubstr("has only 1")));
  EXPECT_THAT([&] { positions({image_}, {{1, 3, 2}}); }, ThrowsMessage<InvalidRequest>(HasSubstr("multiples of 2")));
  EXPECT_THAT([&] { positions({image_}, {{1, 0, 2}}); }, ThrowsMessage<InvalidRequest>(HasSubstr("positive")));
}

TEST_F(RotaryPositionsTest, RefuseImagesOfATextOnlyModel) {
  const ModelConfig text_only = load_model_config(model_fixture("tiny_qwen3_moe"));
  const std::vector<int32_t> ids = {1};
  const std::vector<ImageGrid> images = {{1, 2, 2}};
  EXPECT_THROW(sequence_rotary_positions(ids, images, text_only), InvalidRequest);
}

TEST(RotaryEmbedding, TurnsAllFrequenciesWithTheFirstAxisWhenPlain) {
  const RotaryEmbedding rotary({.theta = 100.0, .dim = 4, .mrope_sections = {}});
  const std::vector<int32_t> position = {3, 5, 7};
  Tensor angles = Tensor::empty({1, 2}, DType::kF32);
  rotary.angles(Tensor::borrow_const(position.data(), {1, 3}, DType::kI32), angles);
  EXPECT_THAT(angles.span<float>(), ElementsAre(3.0f, testing::FloatEq(0.3f)));
}

TEST(RotaryEmbedding, AlternatesAxesWhileTheirSectionsLast) {
  // Six frequencies of 1 each: T H W T then only temporal ones are left.
  const RotaryEmbedding rotary({.theta = 1.0, .dim = 12, .mrope_sections = {{4, 1, 1}}});
  const std::vector<int32_t> position = {3, 5, 7};
  Tensor angles = Tensor::empty({1, 6}, DType::kF32);
  rotary.angles(Tensor::borrow_const(position.data(), {1, 3}, DType::kI32), angles);
  EXPECT_THAT(angles.span<float>(), ElementsAre(3.0f, 5.0f, 7.0f, 3.0f, 3.0f, 3.0f));
}

}  // namespace
}  // namespace skipper
