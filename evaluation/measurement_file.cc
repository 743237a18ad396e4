#include "evaluation/measurement_file.h"

#include "base/error.h"
#include "evaluation/settings_line.h"

namespace skipper {

std::vector<std::string> MeasurementFile::lines(const std::string& settings) const {
  std::vector<std::string> found;
  std::ifstream old(path_);
  std::string line;
  if (!std::getline(old, line) || line != settings_line(settings)) return found;
  while (std::getline(old, line)) found.push_back(line);
  return found;
}

void MeasurementFile::begin(const std::string& settings, std::span<const std::string> lines) {
  file_.open(path_, std::ios::trunc);
  file_ << settings_line(settings) << "\n";
  for (const std::string& line : lines) file_ << line << "\n";
  file_.flush();
  check_written();
}

void MeasurementFile::add(const std::string& line) {
  file_ << line << "\n" << std::flush;
  check_written();
}

void MeasurementFile::check_written() const {
  if (!file_) throw Error(path_.string() + ": cannot be written; check the folder, its permissions and free space");
}

void MeasurementFile::remove() {
  file_.close();
  std::error_code ignored;  // a leftover does no harm: it has its settings in its first line
  std::filesystem::remove(path_, ignored);
}

}  // namespace skipper
