#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/error.h"
#include "machine/device_rates.h"
#include "machine/disk_read_rate.h"
#include "machine/measured_rate.h"
#include "machine/memory_read_rate.h"
#include "machine/product_rate.h"

namespace skipper {
namespace {

TEST(MeasuredRate, HasTheMiddleAndTheEndsOfItsSamples) {
  EXPECT_EQ(rate_of({3.0, 1.0, 2.0}), (MeasuredRate{2.0, 1.0, 3.0, 3}));
  EXPECT_EQ(rate_of({4.0, 1.0}), (MeasuredRate{2.5, 1.0, 4.0, 2}));
  EXPECT_EQ(rate_of({7.0}), (MeasuredRate{7.0, 7.0, 7.0, 1}));
  EXPECT_EQ(rates_from(10.0, {2.0, 5.0}), (std::vector<double>{5.0, 2.0}));
}

TEST(MeasuredRate, LeavesTheFirstRoundOut) {
  double round = 0.0;
  EXPECT_EQ(sample_seconds(3, [&] { return round++; }), (std::vector<double>{1.0, 2.0, 3.0}));
}

TEST(DiskReadRate, ReadsAFileOfWhichNothingRemains) {
  const std::filesystem::path folder = std::filesystem::temp_directory_path() / ("disk_rate_test_" + std::to_string(getpid()));
  std::filesystem::create_directory(folder);
  try {
    DiskReadRate disk(folder, size_t{3} << 20);
    EXPECT_TRUE(std::filesystem::is_empty(folder));
    EXPECT_EQ(disk.num_bytes(), size_t{3} << 20);
    EXPECT_GT(disk.measure_seconds(), 0.0);
  } catch (const InvalidFile& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("past the page cache"));
  }
  std::filesystem::remove_all(folder);
}

TEST(DiskReadRate, RefusesADirectoryThatIsNotThere) {
  EXPECT_THROW(DiskReadRate("/nonexistent/folder", size_t{1} << 20), InvalidFile);
}

TEST(ProductRate, CountsBytesAndOperationsOfEachFormat) {
  ThreadPool workers(2);
  ProductRate wide({}, workers), narrow({WeightKind::kInt4Asymmetric, 32}, workers);
  EXPECT_GE(wide.num_bytes(), size_t{128} << 20);
  EXPECT_GE(narrow.num_bytes(), size_t{128} << 20);
  EXPECT_EQ(wide.num_operations(), narrow.num_operations());
  for (ProductRate* rate : {&wide, &narrow}) {
    EXPECT_GT(rate->measure_row_seconds(), 0.0);
    EXPECT_GT(rate->measure_tile_seconds(), 0.0);
  }
}

TEST(MemoryReadRate, ReadsAllOfItsMemory) {
  ThreadPool workers(2);
  MemoryReadRate memory(workers);
  EXPECT_GT(memory.measure_seconds(), 0.0);
}

TEST(DeviceRates, CopyAsMuchAsTheHostTensorHas) {
  DeviceRates rates(Device::host(), Tensor::zeros({4099}, DType::kU8));
  EXPECT_EQ(rates.num_bytes(), 4099u);
  EXPECT_GT(rates.measure_bus_seconds(), 0.0);
  EXPECT_GT(rates.measure_memory_seconds(), 0.0);
}

}  // namespace
}  // namespace skipper
