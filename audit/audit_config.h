// Which requests are audited, and where their lines go.
#pragma once

#include <cstdint>
#include <filesystem>

namespace skipper {

// What becomes of decisions that come faster than the disk takes them.
enum class SlowDisk : uint8_t {
  kDropLines,  // no step waits
  kWait,       // no decision is missing
};

struct AuditConfig {
  std::filesystem::path file;           // empty: no audit. With several ranks each appends ".rankN" to the name
  double rate = 0.01;                   // share of the requests
  int64_t max_bytes = int64_t{1} << 30;  // of one rank's file
  SlowDisk slow_disk = SlowDisk::kDropLines;
};

}  // namespace skipper
