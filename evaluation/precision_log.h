// Measured points of a precision frontier in a file that grows with every one, so that a run goes on where it was stopped.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "evaluation/measurement_file.h"
#include "evaluation/precision_frontier.h"

namespace skipper {

// One JSON line per measurement, after a line with the settings under which all were made. A line cut short by a kill is
// dropped.
class PrecisionLog {
 public:
  // Takes over what `path` holds when its settings are the same text; otherwise starts it anew. Throws Error when it cannot be
  // written.
  PrecisionLog(std::filesystem::path path, const std::string& settings);

  std::optional<PrecisionMeasurement> find(const ExpertFormats& formats) const;
  void add(const ExpertFormats& formats, const PrecisionMeasurement& measurement);
  size_t num_taken_over() const { return num_taken_over_; }
  // Removes the file, when the work is done.
  void remove() { file_.remove(); }

 private:
  MeasurementFile file_;
  std::map<std::string, PrecisionMeasurement> measurements_;  // by formats
  size_t num_taken_over_ = 0;
};

}  // namespace skipper
