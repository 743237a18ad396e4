// A file that grows with every measurement of a long search, so that it goes on where it was stopped.
#pragma once

#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <vector>

namespace skipper {

// One line per measurement, after a line with the settings under which all were made.
class MeasurementFile {
 public:
  explicit MeasurementFile(std::filesystem::path path) : path_(std::move(path)) {}

  // What an earlier run with the same settings has left, line by line; a kill may have cut the last one short. Nothing where
  // there is no file, or one of other settings.
  std::vector<std::string> lines(const std::string& settings) const;
  // Writes the file anew: a line that a kill cut short would spoil the next one. Throws Error when it cannot be written, as
  // add() does.
  void begin(const std::string& settings, std::span<const std::string> lines);
  void add(const std::string& line);
  // When the work is done.
  void remove();

 private:
  void check_written() const;

  std::filesystem::path path_;
  std::ofstream file_;
};

}  // namespace skipper
