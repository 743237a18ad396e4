#include "evaluation/measurement_cache.h"

#include <array>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "evaluation/settings_line.h"

namespace skipper {
namespace {

using nlohmann::json;

// Every number of the point: two points are the same iff their messages between ranks are.
std::string key_of(const OperatingPoint& point, DataSplit split) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::vector<std::byte> bytes;
  encode(LevelTable{.version = 1, .levels = {point}}, bytes);
  std::string key = split == DataSplit::kSearch ? "search " : "held out ";
  for (const std::byte byte : bytes) {
    key += kDigits[std::to_integer<size_t>(byte >> 4)];
    key += kDigits[std::to_integer<size_t>(byte & std::byte{15})];
  }
  return key;
}

std::string measurement_line(const std::string& key, const PointMeasurement& measurement) {
  return json({{"point", key}, {"measured", sums_to_json(measurement)}}).dump();
}

}  // namespace

MeasurementCache::MeasurementCache(std::filesystem::path path, const std::string& settings) : path_(std::move(path)) {
  take_over(settings);
  // Written anew: a line that a kill cut short would spoil the next one.
  file_.open(path_, std::ios::trunc);
  file_ << settings_line(settings) << "\n";
  for (const auto& [key, measurement] : measurements_) file_ << measurement_line(key, measurement) << "\n";
  file_.flush();
  check_written();
}

void MeasurementCache::take_over(const std::string& settings) {
  std::ifstream old(path_);
  std::string line;
  if (!std::getline(old, line) || line != settings_line(settings)) return;
  while (std::getline(old, line)) {
    try {
      const json entry = json::parse(line);
      measurements_[entry.at("point").get<std::string>()] = sums_from_json(entry.at("measured"));
    } catch (const json::exception&) {
      break;  // cut short
    }
  }
  num_taken_over_ = measurements_.size();
}

std::optional<PointMeasurement> MeasurementCache::find(const OperatingPoint& point, DataSplit split) const {
  const auto found = measurements_.find(key_of(point, split));
  if (found == measurements_.end()) return std::nullopt;
  return found->second;
}

void MeasurementCache::add(const OperatingPoint& point, DataSplit split, const PointMeasurement& measurement) {
  const std::string key = key_of(point, split);
  measurements_[key] = measurement;
  file_ << measurement_line(key, measurement) << "\n" << std::flush;
  check_written();
}

void MeasurementCache::check_written() const {
  if (!file_) throw Error(path_.string() + ": cannot be written; check the folder, its permissions and free space");
}

void MeasurementCache::remove() {
  file_.close();
  std::error_code ignored;  // a leftover does no harm: it has its settings in its first line
  std::filesystem::remove(path_, ignored);
}

}  // namespace skipper
