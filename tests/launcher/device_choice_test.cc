#include "launcher/device_choice.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/build_config.h"
#include "base/error.h"
#include "tensor/device_runtime.h"

namespace skipper {
namespace {

using testing::HasSubstr;

TEST(DeviceChoice, ReadsItsNamesAndTakesWhatThereIsByDefault) {
  EXPECT_EQ(parse_device_choice("cpu"), DeviceChoice::kCpu);
  EXPECT_EQ(parse_device_choice("cuda"), DeviceChoice::kCuda);
  EXPECT_EQ(parse_device_choice("auto"), DeviceChoice::kAuto);
  EXPECT_EQ(parse_device_choice(""), DeviceChoice::kAuto);
}

TEST(DeviceChoice, OfTheCpuIsTheCpuAlsoBesideAGpu) {
  EXPECT_EQ(choose_device(DeviceChoice::kCpu, 3), Device::host());
  EXPECT_EQ(describe_device(Device::host()), "CPU");
}

TEST(DeviceChoice, WithoutAGpuIsTheCpuOrAnErrorThatSaysWhatToDo) {
  if (num_gpus() > 0) GTEST_SKIP() << "this machine has a GPU";
  EXPECT_EQ(choose_device(DeviceChoice::kAuto, 0), Device::host());
  try {
    choose_device(DeviceChoice::kCuda, 0);
    ADD_FAILURE() << "accepted";
  } catch (const DeviceError& error) {
    EXPECT_THAT(error.what(), HasSubstr("--device cpu"));
    EXPECT_THAT(error.what(), HasSubstr(kBuiltWithCuda ? "finds no GPU" : "not in this build"));
  }
}

TEST(DeviceChoice, GivesRanksOfAHostTheGpusInTurn) {
  if (num_gpus() == 0) GTEST_SKIP() << "no GPU in this machine";
  EXPECT_EQ(choose_device(DeviceChoice::kCuda, num_gpus()), Device::cuda(0));
  EXPECT_EQ(num_ranks_on(Device::cuda(0), 1), 1);
  EXPECT_EQ(num_ranks_on(Device::cuda(0), num_gpus() + 1), 2);
}

}  // namespace
}  // namespace skipper
