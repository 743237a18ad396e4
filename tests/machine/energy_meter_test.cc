#include "machine/energy_meter.h"

#include <gtest/gtest.h>

#include <fstream>
#include <string>

namespace skipper {
namespace {

// Counters of two packages, and of a part of the first that must not be counted again.
class EnergyMeters : public testing::Test {
 protected:
  EnergyMeters() : zones_(std::filesystem::temp_directory_path() / ("energy_meter_test_" + std::to_string(getpid()))) {
    for (const char* name : {"intel-rapl:0", "intel-rapl:1", "intel-rapl:0:0", "intel-rapl"}) {
      std::filesystem::create_directories(zones_ / name);
      write(name, "max_energy_range_uj", 1'000'000'000);
      write(name, "energy_uj", 900'000'000);
    }
  }
  ~EnergyMeters() override { std::filesystem::remove_all(zones_); }

  void write(const std::string& zone, const std::string& file, uint64_t number) {
    std::ofstream(zones_ / zone / file) << number << "\n";
  }

  const std::filesystem::path zones_;
};

TEST_F(EnergyMeters, SumPackagesAndCountOnWhenACounterStartsAgain) {
  EnergyMeter meter(zones_);
  const double before = meter.take_joules().value();  // of a GPU, where there is one
  write("intel-rapl:0", "energy_uj", 950'000'000);
  write("intel-rapl:1", "energy_uj", 20'000'000);
  write("intel-rapl:0:0", "energy_uj", 999'000'000);
  EXPECT_GE(before, 0.0);
  const double taken = meter.take_joules().value();
  EXPECT_GE(taken, 50.0 + 120.0 - 1e-9);
  EXPECT_LT(taken, 400.0);
}

TEST_F(EnergyMeters, HaveNothingToSayWithoutCounters) {
  EnergyMeter meter(zones_ / "nowhere");
  const EnergyMeter real;
  if (!meter.take_joules()) SUCCEED() << "no GPU either";
  std::filesystem::remove(zones_ / "intel-rapl:0" / "energy_uj");
  std::filesystem::remove(zones_ / "intel-rapl:1" / "energy_uj");
  EXPECT_EQ(EnergyMeter(zones_).take_joules().has_value(), meter.take_joules().has_value());
}

}  // namespace
}  // namespace skipper
