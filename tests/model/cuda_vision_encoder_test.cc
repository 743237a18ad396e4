#include "model/cuda/vision_encoder.h"

#include "base/error.h"
#include "model/vision_encoder.h"
#include "model/weight_loader.h"
#include "tests/kernels/cuda/gpu_test.h"
#include "tests/model/prompt_fixture.h"

namespace skipper::cuda {
namespace {

ImagePatches random_image(int64_t frames, int64_t down, int64_t across, uint32_t seed) {
  constexpr int64_t kPatchElements = 3 * 2 * 16 * 16;
  ImagePatches image{frames, down, across, {}};
  const Tensor pixels = random_f32({image.num_patches() * kPatchElements}, seed, 0.5f);
  image.pixels.assign(pixels.data<float>(), pixels.data<float>() + pixels.num_elements());
  return image;
}

// The demo's tower in one format.
struct DemoTower {
  explicit DemoTower(const WeightConfig& formats = {}) {
    const Checkpoint checkpoint(demo_model());
    LoadQueue queue;
    weights = *load_dense_weights({checkpoint, config, formats}, queue).weights.vision;
    queue.run(ThreadPool::caller_only(), {});
  }

  ModelConfig config = load_model_config(demo_model());
  VisionWeights weights;
};

std::vector<Tensor> all_features(const ImageFeatures& features) {
  std::vector<Tensor> all = features.deepstack;
  all.push_back(features.embeddings);
  return all;
}

// As weights rest in a model: see weight_config.h.
WeightConfig with_activations(DType dtype) {
  WeightConfig formats;
  formats.activation_dtype = dtype;
  return formats;
}

class CudaVisionEncoder : public GpuTest {
 protected:
  std::vector<Tensor> encode(const VisionEncoder& encoder, std::span<const ImagePatches> images) {
    std::vector<Tensor> all;
    for (const Tensor& features : all_features(encoder.encode(images, stream()))) all.push_back(on_host(features));
    return all;
  }
};

// Both round what enters a product to BF16; the GPU also rounds queries, keys, values and softmax weights.
TEST_F(CudaVisionEncoder, IsAboutAsFarFromFullPrecisionAsTheHostWithBf16) {
  const DemoTower tower, exact(with_activations(DType::kF32));
  const std::vector<ImagePatches> images{random_image(1, 14, 14, 1), random_image(2, 4, 6, 2), random_image(1, 2, 2, 3)};
  Stream host;
  const VisionConfig& config = *tower.config.vision;
  const auto expected = all_features(skipper::VisionEncoder(config, exact.weights).encode(images, host));
  const auto rounded = all_features(skipper::VisionEncoder(config, tower.weights).encode(images, host));
  const auto actual = encode(VisionEncoder(config, tower.weights, stream()), images);
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    ASSERT_TRUE(actual[i].shape() == expected[i].shape());
    const double host_error = relative_error(rounded[i], expected[i]);
    EXPECT_GT(host_error, 0.0);
    EXPECT_LT(relative_error(actual[i], expected[i]), 3.0 * host_error) << "features " << i;
  }
}

TEST_F(CudaVisionEncoder, BitsOfAnImageDoNotDependOnTheOthers) {
  const DemoTower tower;
  const VisionEncoder encoder(*tower.config.vision, tower.weights, stream());
  const std::vector<ImagePatches> together{random_image(1, 6, 4, 1), random_image(1, 8, 10, 2)};
  const std::vector<Tensor> both = encode(encoder, together), alone = encode(encoder, {&together[1], 1});
  for (size_t i = 0; i < both.size(); ++i) EXPECT_TRUE(same_bytes(both[i].slice(6, 26), alone[i])) << i;
}

TEST_F(CudaVisionEncoder, NoImagesGiveNoFeatures) {
  const DemoTower tower;
  const VisionEncoder encoder(*tower.config.vision, tower.weights, stream());
  EXPECT_EQ(encoder.encode({}, stream()).embeddings.num_elements(), 0);
}

TEST_F(CudaVisionEncoder, RefusesAnImageWhosePixelsDoNotFillItsGrid) {
  const DemoTower tower;
  const VisionEncoder encoder(*tower.config.vision, tower.weights, stream());
  ImagePatches image = random_image(1, 4, 4, 1);
  image.pixels.pop_back();
  EXPECT_THROW(encoder.encode({&image, 1}, stream()), InvalidRequest);
}

}  // namespace
}  // namespace skipper::cuda
