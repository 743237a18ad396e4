#include "evaluation/point_log.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "evaluation/frontier_file.h"
#include "evaluation/settings_line.h"

namespace skipper {
namespace {

using nlohmann::json;

std::string line_of(const std::string& key, const LoggedPoint& point) {
  const json line = {{"point", key}, {"kl", point.kl}, {"num_scored", point.num_scored}, {"pairs_skipped", point.pairs_skipped}};
  return line.dump();
}

// A few words around the first difference.
std::string difference(const std::string& text, const std::string& other) {
  constexpr size_t kLength = 60;
  const auto differing = std::mismatch(text.begin(), text.end(), other.begin(), other.end()).first;
  const auto position = static_cast<size_t>(differing - text.begin());
  const size_t space = position == 0 ? std::string::npos : text.rfind(';', position - 1);
  return text.substr(space == std::string::npos ? 0 : space + 2, kLength);
}

}  // namespace

PointLog::PointLog(std::filesystem::path path, const std::string& settings) : path_(std::move(path)) {
  take_over(settings);
  // Written anew, as a line that a kill cut short would spoil the next one; at once, so that no kill loses what is there.
  std::string text = settings_line(settings) + "\n";
  for (const auto& [key, point] : points_) text += line_of(key, point) + "\n";
  write_file_atomically(path_, text);
  file_.open(path_, std::ios::app);
  require_written();
}

void PointLog::take_over(const std::string& settings) {
  std::ifstream old(path_);
  std::string line;
  if (!std::getline(old, line)) return;
  const json first = json::parse(line, nullptr, false);
  const std::string found = first.is_object() ? first.value("settings", "") : "";
  if (found.empty()) throw Error(path_.string() + ": is no record of a calibration; remove it");
  if (found != settings) {
    throw Error(path_.string() + ": was begun with '" + difference(found, settings) + "', not '" +
                difference(settings, found) + "'; finish it with those settings, or remove it");
  }
  while (std::getline(old, line)) {
    const json entry = json::parse(line, nullptr, false);
    if (!entry.is_object()) break;  // cut short
    points_[entry.value("point", "")] = {entry.value("kl", 0.0), entry.value("num_scored", int64_t{0}),
                                         entry.value("pairs_skipped", int64_t{0})};
  }
}

std::optional<LoggedPoint> PointLog::find(const std::string& key) const {
  const auto found = points_.find(key);
  if (found == points_.end()) return std::nullopt;
  return found->second;
}

void PointLog::add(const std::string& key, const LoggedPoint& point) {
  points_[key] = point;
  file_ << line_of(key, point) << "\n" << std::flush;
  require_written();
}

void PointLog::require_written() const {
  if (!file_) throw Error(path_.string() + ": cannot be written; check the folder, its permissions and free space");
}

void PointLog::remove() {
  file_.close();
  std::error_code ignored;  // a leftover is taken over by the same calibration and refused by others
  std::filesystem::remove(path_, ignored);
}

}  // namespace skipper
