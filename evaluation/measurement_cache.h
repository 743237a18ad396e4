// Measurements of operating points in a file that grows with every one, so that long work goes on where it was stopped.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "evaluation/measurement_file.h"
#include "evaluation/point_measurement.h"

namespace skipper {

// One JSON line per measurement, after a line with the settings under which all were made. A line cut short by a kill is
// dropped.
class MeasurementCache {
 public:
  // Takes over what `path` holds when its settings are the same text; otherwise starts it anew. Throws Error when it cannot be
  // written.
  MeasurementCache(std::filesystem::path path, const std::string& settings);

  std::optional<PointMeasurement> find(const OperatingPoint& point, DataSplit split) const;
  void add(const OperatingPoint& point, DataSplit split, const PointMeasurement& measurement);
  size_t num_taken_over() const { return num_taken_over_; }
  // Removes the file, when the work is done.
  void remove() { file_.remove(); }

 private:
  MeasurementFile file_;
  std::map<std::string, PointMeasurement> measurements_;  // by point and split
  size_t num_taken_over_ = 0;
};

}  // namespace skipper
