// How much energy the machine takes: the counters of its processors (RAPL) and of its first GPU (NVML), where they can be read.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <vector>

namespace skipper {

class EnergyMeter {
 public:
  // `power_zones` has a folder for each processor package, "intel-rapl:0" and so on.
  explicit EnergyMeter(const std::filesystem::path& power_zones = "/sys/class/powercap");
  ~EnergyMeter();
  EnergyMeter(const EnergyMeter&) = delete;
  EnergyMeter& operator=(const EnergyMeter&) = delete;

  // Everything that the machine has taken since the last call or the construction, other programs' share included; nothing
  // where no counter can be read.
  std::optional<double> take_joules();

 private:
  struct Zone {
    std::filesystem::path counter;
    uint64_t range = 0;  // at which the counter starts again at 0
    uint64_t last = 0;   // microjoules
  };
  struct Gpu;

  void find_zones(const std::filesystem::path& power_zones);

  std::vector<Zone> zones_;
  std::unique_ptr<Gpu> gpu_;  // null without one
};

}  // namespace skipper
