#include "tenancy/process_memory.h"

#include <fstream>
#include <sstream>
#include <string>

namespace skipper {

std::optional<int64_t> resident_bytes(int64_t pid) {
  constexpr int64_t kKilobyte = 1024;
  constexpr const char* kKey = "VmRSS:";
  std::ifstream status("/proc/" + std::to_string(pid) + "/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind(kKey, 0) != 0) continue;
    int64_t kilobytes = 0;
    std::istringstream(line.substr(std::string(kKey).size())) >> kilobytes;
    return kilobytes * kKilobyte;
  }
  return std::nullopt;
}

}  // namespace skipper
