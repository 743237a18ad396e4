#include "frontend/request_fields.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/error.h"

namespace skipper {

using nlohmann::json;

namespace {

const json kNull = nullptr;

std::string shown(double value) {
  std::ostringstream text;
  text << value;
  return text.str();
}

// Whole numbers in the range of int64; false for 2^63 and above.
bool fits_int64(const json& value) {
  if (!value.is_number_integer()) return false;
  return !value.is_number_unsigned() || value.get<uint64_t>() <= static_cast<uint64_t>(INT64_MAX);
}

}  // namespace

std::string json_kind(const json& value) {
  switch (value.type()) {
    case json::value_t::null: return "null";
    case json::value_t::boolean: return "a boolean";
    case json::value_t::string: return "a string";
    case json::value_t::array: return "a list";
    case json::value_t::object: return "an object";
    case json::value_t::number_float: return "a number with a fraction or exponent";
    default: return "an integer";
  }
}

RequestFields::RequestFields(const json& object, std::string path) : object_(object), path_(std::move(path)) {
  if (object.is_object()) return;
  throw InvalidRequest((path_.empty() ? "the body" : path_) + ": expected an object, found " + json_kind(object), path_);
}

std::string RequestFields::path_of(const std::string& key) const { return path_.empty() ? key : path_ + "." + key; }

const json& RequestFields::raw(const std::string& key) const {
  const auto entry = object_.find(key);
  return entry == object_.end() ? kNull : *entry;
}

bool RequestFields::has(const std::string& key) const { return !raw(key).is_null(); }

void RequestFields::fail(const std::string& key, const std::string& problem) const {
  throw InvalidRequest(path_of(key) + ": " + problem, path_of(key));
}

std::optional<int64_t> RequestFields::integer(const std::string& key, IntegerRange range) const {
  const json& value = raw(key);
  if (value.is_null()) return std::nullopt;
  if (!value.is_number_integer()) fail(key, "expected an integer, found " + json_kind(value));
  if (fits_int64(value) && value.get<int64_t>() >= range.min && value.get<int64_t>() <= range.max) return value.get<int64_t>();
  fail(key, value.dump() + " is not from " + std::to_string(range.min) + " to " + std::to_string(range.max));
}

std::optional<double> RequestFields::number(const std::string& key, NumberRange range) const {
  const json& value = raw(key);
  if (value.is_null()) return std::nullopt;
  if (!value.is_number()) fail(key, "expected a number, found " + json_kind(value));
  const double number = value.get<double>();
  if (std::isfinite(number) && number >= range.min && number <= range.max) return number;
  fail(key, shown(number) + " is not from " + shown(range.min) + " to " + shown(range.max));
}

std::optional<bool> RequestFields::boolean(const std::string& key) const {
  const json& value = raw(key);
  if (value.is_null()) return std::nullopt;
  if (!value.is_boolean()) fail(key, "expected true or false, found " + json_kind(value));
  return value.get<bool>();
}

std::optional<std::string> RequestFields::string(const std::string& key) const {
  const json& value = raw(key);
  if (value.is_null()) return std::nullopt;
  if (!value.is_string()) fail(key, "expected a string, found " + json_kind(value));
  return value.get<std::string>();
}

std::string RequestFields::required_string(const std::string& key) const {
  if (auto value = string(key)) return *std::move(value);
  fail(key, "is missing; expected a string");
}

}  // namespace skipper
