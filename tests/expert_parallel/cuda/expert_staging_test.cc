#include "expert_parallel/cuda/expert_staging.h"

#include "tests/kernels/cuda/gpu_test.h"

namespace skipper::cuda {
namespace {

constexpr int64_t kHidden = 64, kWidth = 32;

// Layers of two experts; in odd layers only the second rests on the host.
class ExpertStagingTest : public GpuTest {
 protected:
  static std::vector<MatrixPlace> places(int layer) {
    return {layer % 2 == 0 ? MatrixPlace::kHost : MatrixPlace::kDevice, MatrixPlace::kHost};
  }

  ExpertMatricesOnGpu random_layer(int layer) {
    const std::vector<WeightFormat> formats{{WeightKind::kInt4, 32}, {WeightKind::kBF16, 0}};
    const Device device = Device::cuda(0);
    ExpertMatricesOnGpu experts{empty_device_matrices(formats, places(layer), {2 * kWidth, kHidden}, device),
                                empty_device_matrices(formats, places(layer), {kHidden, kWidth}, device)};
    fill_random(experts.gate_up, static_cast<uint64_t>(layer), stream());
    fill_random(experts.down, static_cast<uint64_t>(100 + layer), stream());
    return experts;
  }
  std::unique_ptr<ExpertStaging> staging_of(int num_layers) {
    for (int layer = 0; layer < num_layers; ++layer) layers_.push_back(random_layer(layer));
    auto staging = std::make_unique<ExpertStaging>(layers_.front().num_host_bytes(), Device::cuda(0));
    for (int layer = 0; layer < num_layers; ++layer) EXPECT_EQ(staging->add_layer(layers_[static_cast<size_t>(layer)]), layer);
    return staging;
  }
  // Reads a layer's copies in stream order, as its kernels would.
  void expect_copies(ExpertStaging& staging, int layer) {
    const ExpertMatricesOnGpu* copies = staging.acquire(layer, stream());
    ASSERT_NE(copies, nullptr);
    for (const auto matrices : {&ExpertMatricesOnGpu::gate_up, &ExpertMatricesOnGpu::down}) {
      const DeviceMatrices& resting = layers_[static_cast<size_t>(layer)].*matrices;
      EXPECT_TRUE(same_bytes(on_host((copies->*matrices).copies), resting.host_memory.tensor())) << "layer " << layer;
    }
    staging.release(layer, stream());
  }

  std::vector<ExpertMatricesOnGpu> layers_;
};

TEST_F(ExpertStagingTest, HasEachLayersCopiesInTime) {
  for (const int num_layers : {1, 2, 3, 7}) {
    layers_.clear();
    const auto staging = staging_of(num_layers);
    for (int step = 0; step < 3; ++step) {
      staging->begin_step(num_layers);
      for (int layer = 0; layer < num_layers; ++layer) expect_copies(*staging, layer);
    }
  }
}

TEST_F(ExpertStagingTest, TakesStepsThatLeaveLayersOut) {
  const auto staging = staging_of(7);
  const std::vector<std::vector<int>> steps{{0, 3, 6}, {5, 6}, {1}, {}, {0, 1, 4}};
  for (const std::vector<int>& used : steps) {
    staging->begin_step(7);
    for (const int layer : used) expect_copies(*staging, layer);
  }
}

TEST_F(ExpertStagingTest, CopiesNothingForLayersThatAreReadInPlace) {
  const auto staging = staging_of(4);
  staging->begin_step(0);
  for (int layer = 0; layer < 4; ++layer) {
    EXPECT_EQ(staging->acquire(layer, stream()), nullptr);
    staging->release(layer, stream());
  }
  EXPECT_EQ(staging->num_copied_bytes(), 0u);
  staging->begin_step(3);
  for (int layer = 0; layer < 3; ++layer) expect_copies(*staging, layer);
  EXPECT_EQ(staging->acquire(3, stream()), nullptr);
  EXPECT_EQ(staging->num_copied_bytes(), 2 * layers_[0].num_host_bytes() + layers_[1].num_host_bytes());
}

}  // namespace
}  // namespace skipper::cuda
