#include "machine/energy_meter.h"

#include <dlfcn.h>

#include <fstream>
#include <string>

namespace skipper {
namespace {

constexpr double kMicro = 1e-6, kMilli = 1e-3;

std::optional<uint64_t> read_number(const std::filesystem::path& path) {
  std::ifstream file(path);
  uint64_t number = 0;
  if (!(file >> number)) return std::nullopt;
  return number;
}

// "intel-rapl:0" is a package; "intel-rapl:0:1" a part of one, which it counts already.
bool is_package(const std::string& name) {
  const size_t colon = name.find(':');
  return colon != std::string::npos && name.find(':', colon + 1) == std::string::npos;
}

template <typename Function>
Function symbol(void* library, const char* name) {
  return reinterpret_cast<Function>(dlsym(library, name));
}

}  // namespace

// NVML comes with the driver, so it is opened where it is found. All of its functions return 0 for success.
struct EnergyMeter::Gpu {
  ~Gpu() {
    if (library != nullptr) dlclose(library);
  }

  bool open() {
    library = dlopen("libnvidia-ml.so.1", RTLD_NOW);
    if (library == nullptr) return false;
    const auto start = symbol<int (*)()>(library, "nvmlInit_v2");
    const auto find = symbol<int (*)(unsigned, void**)>(library, "nvmlDeviceGetHandleByIndex_v2");
    read = symbol<int (*)(void*, unsigned long long*)>(library, "nvmlDeviceGetTotalEnergyConsumption");
    if (start == nullptr || find == nullptr || read == nullptr) return false;
    return start() == 0 && find(0, &device) == 0 && read(device, &last) == 0;
  }

  double take_joules() {
    const unsigned long long before = last;
    return read(device, &last) == 0 ? kMilli * static_cast<double>(last - before) : 0.0;
  }

  void* library = nullptr;
  void* device = nullptr;
  int (*read)(void*, unsigned long long*) = nullptr;
  unsigned long long last = 0;  // millijoules
};

EnergyMeter::EnergyMeter(const std::filesystem::path& power_zones) : gpu_(std::make_unique<Gpu>()) {
  find_zones(power_zones);
  if (!gpu_->open()) gpu_.reset();
}

EnergyMeter::~EnergyMeter() = default;

void EnergyMeter::find_zones(const std::filesystem::path& power_zones) {
  std::error_code missing;
  for (const auto& entry : std::filesystem::directory_iterator(power_zones, missing)) {
    if (!is_package(entry.path().filename().string())) continue;
    const auto now = read_number(entry.path() / "energy_uj");
    const auto range = read_number(entry.path() / "max_energy_range_uj");
    if (now && range) zones_.push_back({entry.path() / "energy_uj", *range, *now});
  }
}

std::optional<double> EnergyMeter::take_joules() {
  if (zones_.empty() && !gpu_) return std::nullopt;
  double joules = gpu_ ? gpu_->take_joules() : 0.0;
  for (Zone& zone : zones_) {
    const uint64_t now = read_number(zone.counter).value_or(zone.last);
    const uint64_t taken = now >= zone.last ? now - zone.last : now + zone.range - zone.last;
    joules += kMicro * static_cast<double>(taken);
    zone.last = now;
  }
  return joules;
}

}  // namespace skipper
