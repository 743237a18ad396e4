#include "machine/host_identity.h"

#include <sched.h>
#include <unistd.h>

#include <array>
#include <fstream>

#include "kernels/cpu/instruction_set.h"
#include "tensor/device_runtime.h"
#include "tensor/gpu_properties.h"

namespace skipper {
namespace {

// Processors of other kinds than x86 write no model name.
std::string processor_model() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with("model name")) continue;
    const size_t begin = line.find(": ");
    if (begin != std::string::npos) return line.substr(begin + 2);
  }
  return "unknown processor";
}

std::string host_name() {
  std::array<char, 256> name{};
  gethostname(name.data(), name.size() - 1);
  return name.data();
}

int num_usable_cores() {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  return sched_getaffinity(0, sizeof(cores), &cores) == 0 ? CPU_COUNT(&cores) : 1;
}

std::string either(const std::string& what, const std::string& measured, const std::string& here) {
  return what + " " + (measured.empty() ? "none" : measured) + ", here " + (here.empty() ? "none" : here);
}

}  // namespace

HostIdentity this_host() {
  HostIdentity host{.name = host_name(),
                    .processor = processor_model() + " (" + std::string(cpu::name_of(cpu::best_isa())) + ")",
                    .num_cores = num_usable_cores(),
                    .gpu = {}};
  if (num_gpus() > 0) host.gpu = gpu_properties(0).name;
  return host;
}

std::string difference(const HostIdentity& measured, const HostIdentity& here) {
  if (measured.processor != here.processor) return either("processor", measured.processor, here.processor);
  if (measured.num_cores != here.num_cores) {
    return either("cores", std::to_string(measured.num_cores), std::to_string(here.num_cores));
  }
  if (measured.gpu != here.gpu) return either("GPU", measured.gpu, here.gpu);
  return "";
}

}  // namespace skipper
