// The file of one rank's audit lines, written by a thread of its own so that no step waits for a disk.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <string>
#include <thread>
#include <variant>
#include <vector>

#include "audit/audit_config.h"
#include "audit/routing_record.h"

namespace skipper {

// Bounded in bytes and in what may wait: past either the file holds whole lines, the rest is left out and one warning logged.
// append() is for one thread; it waits for the disk under SlowDisk::kWait alone. Tables of levels are never left out while
// decisions are written: what follows could not be read without them.
class AuditFile {
 public:
  // A line, or what becomes one on the writer's thread.
  using Line = std::variant<std::string, RoutingRecord>;

  // Throws Error when the file cannot be written. Overwrites.
  AuditFile(const std::filesystem::path& path, int64_t max_bytes, SlowDisk slow_disk = SlowDisk::kDropLines);
  // Writes what waits.
  ~AuditFile();

  void append(Line line);
  // Full, or failed: appending has no effect any more.
  bool has_ended() const;

 private:
  void run();
  void write(const std::vector<Line>& lines);
  void stop_with_warning(const std::string& reason);

  const std::string name_;
  const int64_t max_bytes_;
  const SlowDisk slow_disk_;
  std::ofstream file_;         // writer's thread
  int64_t num_bytes_ = 0;      // writer's thread

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::condition_variable emptied_;
  std::vector<Line> waiting_;
  int64_t num_dropped_ = 0;
  bool has_ended_ = false;
  bool closing_ = false;
  std::thread thread_;         // last: it uses the members above
};

}  // namespace skipper
