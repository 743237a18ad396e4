// Memory, streams and copies of a real GPU; without one every test is a visible skip.
#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "tensor/device_runtime.h"
#include "tensor/tensor.h"

namespace skipper {
namespace {

class GpuRuntime : public testing::Test {
 protected:
  void SetUp() override {
    if (num_gpus() == 0) GTEST_SKIP() << "no GPU in this machine";
  }
};

TEST_F(GpuRuntime, CopiesToTheDeviceAndBack) {
  Stream stream(Device::cuda(0));
  std::vector<float> values(1000);
  std::iota(values.begin(), values.end(), 0.0f);
  Tensor on_gpu = Tensor::empty({1000}, DType::kF32, Device::cuda(0));
  const auto* source = reinterpret_cast<const std::byte*>(values.data());
  copy_bytes({source, Device::host(), on_gpu.bytes(), on_gpu.device(), on_gpu.num_bytes()}, stream);
  std::vector<float> back(1000);
  auto* destination = reinterpret_cast<std::byte*>(back.data());
  copy_bytes({on_gpu.bytes(), on_gpu.device(), destination, Device::host(), on_gpu.num_bytes()}, stream);
  stream.synchronize();
  EXPECT_EQ(back, values);
}

TEST_F(GpuRuntime, ZerosAreZero) {
  Stream stream(Device::cuda(0));
  const Tensor zeros = Tensor::zeros({17}, DType::kI32, Device::cuda(0));
  std::vector<int32_t> back(17, 1);
  auto* destination = reinterpret_cast<std::byte*>(back.data());
  copy_bytes({zeros.bytes(), zeros.device(), destination, Device::host(), zeros.num_bytes()}, stream);
  stream.synchronize();
  EXPECT_EQ(back, std::vector<int32_t>(17, 0));
}

}  // namespace
}  // namespace skipper
