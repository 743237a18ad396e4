// Typed reads from a JSON object that a client sent; every error is an InvalidRequest that names the field's path.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

namespace skipper {

struct IntegerRange {
  int64_t min = 0;
  int64_t max = 0;
};

struct NumberRange {
  double min = 0.0;
  double max = 0.0;
};

// A cursor on one object; null stands for an absent field everywhere. The JSON must outlive it.
class RequestFields {
 public:
  // `path` is that of the object itself, empty for the body. Throws when `object` is not an object.
  RequestFields(const nlohmann::json& object, std::string path);

  // "messages[1]" + "content" → "messages[1].content".
  std::string path_of(const std::string& key) const;
  // The value, or null when absent.
  const nlohmann::json& raw(const std::string& key) const;
  bool has(const std::string& key) const;

  std::optional<int64_t> integer(const std::string& key, IntegerRange range) const;
  std::optional<double> number(const std::string& key, NumberRange range) const;
  std::optional<bool> boolean(const std::string& key) const;
  std::optional<std::string> string(const std::string& key) const;
  std::string required_string(const std::string& key) const;

  // Throws InvalidRequest "key: problem" with the field's path as param.
  [[noreturn]] void fail(const std::string& key, const std::string& problem) const;

 private:
  const nlohmann::json& object_;
  std::string path_;
};

// "a list", "a string", "null": what a client's value is, for messages.
std::string json_kind(const nlohmann::json& value);

}  // namespace skipper
