#include "base/json_fields.h"

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "base/error.h"

namespace skipper {

using nlohmann::json;

namespace {

const json kNull = nullptr;

size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t substitution = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substitution});
    }
  }
  return row[b.size()];
}

std::string range_text(double min, double max) {
  std::ostringstream text;
  text << "from " << min << " to " << max;
  return text.str();
}

}  // namespace

std::optional<std::string> nearest_name(const std::string& name, const std::vector<std::string>& candidates) {
  std::optional<std::string> best;
  size_t best_distance = std::max<size_t>(2, name.size() / 3) + 1;
  for (const std::string& candidate : candidates) {
    const size_t distance = edit_distance(name, candidate);
    if (distance < best_distance) {
      best_distance = distance;
      best = candidate;
    }
  }
  return best;
}

json read_json_file(const std::filesystem::path& path, size_t max_bytes) {
  std::error_code status;
  if (std::filesystem::is_directory(path, status)) throw InvalidFile(path.string() + ": is a directory, expected a file");
  std::ifstream file(path, std::ios::binary);
  if (!file) throw InvalidFile(path.string() + ": cannot be opened; check the path and its permissions");
  const auto size = std::filesystem::file_size(path, status);
  if (!status && size > max_bytes) {
    throw InvalidFile(path.string() + ": " + std::to_string(size) + " bytes, more than the limit of " +
                      std::to_string(max_bytes));
  }
  try {
    return json::parse(file);
  } catch (const json::exception& e) {
    throw InvalidFile(path.string() + ": not valid JSON: " + e.what());
  }
}

struct JsonFields::State {
  const json* object;
  mutable std::set<std::string> asked;
};

JsonFields::JsonFields(const json& object, std::string path) : path_(std::move(path)) {
  if (!object.is_object()) throw InvalidFile(path_ + ": expected a JSON object, found " + object.type_name());
  state_ = std::make_unique<State>(State{&object, {}});
}

JsonFields::~JsonFields() = default;
JsonFields::JsonFields(JsonFields&&) noexcept = default;

const json& JsonFields::find(const std::string& key) const {
  state_->asked.insert(key);
  const auto found = state_->object->find(key);
  return found == state_->object->end() ? kNull : *found;
}

void JsonFields::fail(const std::string& key, const std::string& problem) const {
  throw InvalidFile(path_ + ": " + key + ": " + problem);
}

bool JsonFields::has(const std::string& key) const { return !find(key).is_null(); }

const json& JsonFields::raw(const std::string& key) const { return find(key); }

int64_t JsonFields::required_int(const std::string& key, int64_t min, int64_t max) const {
  const json& value = find(key);
  if (value.is_null()) fail(key, "is missing; expected an integer");
  if (!value.is_number_integer()) fail(key, "expected an integer, found " + value.dump());
  const bool too_large = value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX);
  if (too_large || value.get<int64_t>() < min || value.get<int64_t>() > max) {
    fail(key, value.dump() + " is out of range; expected " + std::to_string(min) + " to " + std::to_string(max));
  }
  return value.get<int64_t>();
}

double JsonFields::required_number(const std::string& key, double min, double max) const {
  const json& value = find(key);
  if (value.is_null()) fail(key, "is missing; expected a number");
  if (!value.is_number()) fail(key, "expected a number, found " + value.dump());
  const double number = value.get<double>();
  if (!(number >= min && number <= max)) fail(key, value.dump() + " is out of range; expected " + range_text(min, max));
  return number;
}

std::string JsonFields::required_string(const std::string& key) const {
  const json& value = find(key);
  if (value.is_null()) fail(key, "is missing; expected a string");
  if (!value.is_string()) fail(key, "expected a string, found " + value.dump());
  return value.get<std::string>();
}

int64_t JsonFields::optional_int(const std::string& key, int64_t fallback, int64_t min, int64_t max) const {
  return has(key) ? required_int(key, min, max) : fallback;
}

double JsonFields::optional_number(const std::string& key, double fallback, double min, double max) const {
  return has(key) ? required_number(key, min, max) : fallback;
}

bool JsonFields::optional_bool(const std::string& key, bool fallback) const {
  const json& value = find(key);
  if (value.is_null()) return fallback;
  if (!value.is_boolean()) fail(key, "expected true or false, found " + value.dump());
  return value.get<bool>();
}

std::string JsonFields::optional_string(const std::string& key, const std::string& fallback) const {
  return has(key) ? required_string(key) : fallback;
}

std::vector<int64_t> JsonFields::optional_ints(const std::string& key, int64_t min, int64_t max) const {
  std::vector<int64_t> result;
  const json& value = find(key);
  if (value.is_null()) return result;
  if (!value.is_array()) fail(key, "expected a list of integers, found " + value.dump());
  for (const json& item : value) {
    const bool valid = item.is_number_integer() && item.get<int64_t>() >= min && item.get<int64_t>() <= max;
    if (!valid) {
      fail(key, item.dump() + " is not an integer from " + std::to_string(min) + " to " + std::to_string(max));
    }
    result.push_back(item.get<int64_t>());
  }
  return result;
}

std::vector<double> JsonFields::optional_numbers(const std::string& key, double min, double max) const {
  std::vector<double> result;
  const json& value = find(key);
  if (value.is_null()) return result;
  if (!value.is_array()) fail(key, "expected a list of numbers, found " + value.dump());
  for (const json& item : value) {
    const bool valid = item.is_number() && item.get<double>() >= min && item.get<double>() <= max;
    if (!valid) fail(key, item.dump() + " is not a number " + range_text(min, max));
    result.push_back(item.get<double>());
  }
  return result;
}

JsonFields JsonFields::required_object(const std::string& key) const {
  const json& value = find(key);
  if (value.is_null()) fail(key, "is missing; expected an object");
  if (!value.is_object()) fail(key, "expected an object, found " + value.dump());
  return JsonFields(value, path_ + ": " + key);
}

std::optional<JsonFields> JsonFields::optional_object(const std::string& key) const {
  if (!has(key)) return std::nullopt;
  return required_object(key);
}

void JsonFields::reject_unknown_keys() const {
  for (const auto& [key, value] : state_->object->items()) {
    if (state_->asked.count(key) != 0) continue;
    const std::vector<std::string> known(state_->asked.begin(), state_->asked.end());
    const auto nearest = nearest_name(key, known);
    fail(key, "unknown key" + (nearest ? "; did you mean '" + *nearest + "'?" : std::string("; remove it")));
  }
}

}  // namespace skipper
