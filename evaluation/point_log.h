// Finished measurements in a file that grows with each, so that a calibration that was stopped goes on where it was.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <string>

namespace skipper {

// What calibration needs of a point.
struct LoggedPoint {
  double kl = 0.0;
  int64_t num_scored = 0;
  int64_t pairs_skipped = 0;

  double mean_kl() const { return num_scored > 0 ? kl / static_cast<double>(num_scored) : 0.0; }
  bool operator==(const LoggedPoint&) const = default;
};

// JSON lines: the settings that every number depends on, then one line per point, flushed at once. A last line that a kill cut
// short is dropped.
class PointLog {
 public:
  // Takes over what `path` holds. Throws Error when that was made with other settings, naming the first difference, and when the
  // file cannot be written.
  PointLog(std::filesystem::path path, const std::string& settings);

  std::optional<LoggedPoint> find(const std::string& key) const;
  void add(const std::string& key, const LoggedPoint& point);
  size_t size() const { return points_.size(); }
  // Removes the file: the work is done.
  void remove();

 private:
  void take_over(const std::string& settings);
  void require_written() const;

  std::filesystem::path path_;
  std::map<std::string, LoggedPoint> points_;
  std::ofstream file_;
};

}  // namespace skipper
