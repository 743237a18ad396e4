#include "evaluation/measurement_cache.h"

#include <nlohmann/json.hpp>

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

MeasurementCache::MeasurementCache(std::filesystem::path path, const std::string& settings) : file_(std::move(path)) {
  for (const std::string& line : file_.lines(settings)) {
    try {
      const json entry = json::parse(line);
      measurements_[entry.at("point").get<std::string>()] = sums_from_json(entry.at("measured"));
    } catch (const json::exception&) {
      break;  // cut short
    }
  }
  num_taken_over_ = measurements_.size();
  std::vector<std::string> lines;
  for (const auto& [key, measurement] : measurements_) lines.push_back(measurement_line(key, measurement));
  file_.begin(settings, lines);
}

std::optional<PointMeasurement> MeasurementCache::find(const OperatingPoint& point, DataSplit split) const {
  const auto found = measurements_.find(key_of(point, split));
  if (found == measurements_.end()) return std::nullopt;
  return found->second;
}

void MeasurementCache::add(const OperatingPoint& point, DataSplit split, const PointMeasurement& measurement) {
  const std::string key = key_of(point, split);
  measurements_[key] = measurement;
  file_.add(measurement_line(key, measurement));
}

}  // namespace skipper
