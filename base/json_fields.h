// Typed reads from a JSON object loaded from a file; every error names the file and the full key path.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

namespace skipper {

// Parses a JSON file. Throws InvalidFile naming the path when it is missing, too large (over `max_bytes`), or not JSON
// (with line and column of the mistake).
nlohmann::json read_json_file(const std::filesystem::path& path, size_t max_bytes = size_t{256} << 20);

// A cursor on one JSON object. Remembers which keys were asked for, so that `reject_unknown_keys` can find typos.
//
//   JsonFields fields(json, "config.json");
//   config.hidden_size = fields.required_int("hidden_size", 1, 1 << 20);
//   fields.object("vision_config") ...        errors read "config.json: vision_config.depth: ..."
//
// The JSON must outlive the cursor. Throws InvalidFile.
class JsonFields {
 public:
  JsonFields(const nlohmann::json& object, std::string path);
  ~JsonFields();
  JsonFields(JsonFields&&) noexcept;

  const std::string& path() const { return path_; }
  bool has(const std::string& key) const;  // present and not null

  int64_t required_int(const std::string& key, int64_t min, int64_t max) const;
  double required_number(const std::string& key, double min, double max) const;
  std::string required_string(const std::string& key) const;

  // The default stands for an absent or null key; a value of the wrong type or out of range is an error, never the default.
  int64_t optional_int(const std::string& key, int64_t fallback, int64_t min, int64_t max) const;
  double optional_number(const std::string& key, double fallback, double min, double max) const;
  bool optional_bool(const std::string& key, bool fallback) const;
  std::string optional_string(const std::string& key, const std::string& fallback) const;

  std::vector<int64_t> optional_ints(const std::string& key, int64_t min, int64_t max) const;
  std::vector<double> optional_numbers(const std::string& key, double min, double max) const;

  JsonFields required_object(const std::string& key) const;
  std::optional<JsonFields> optional_object(const std::string& key) const;

  // The raw value, for shapes the typed reads do not cover; null when absent.
  const nlohmann::json& raw(const std::string& key) const;

  // Throws for the first key never asked for, with the nearest known name.
  void reject_unknown_keys() const;

  // Throws InvalidFile "path: key: problem" for a value this class could read but its caller refuses.
  [[noreturn]] void fail(const std::string& key, const std::string& problem) const;

 private:
  struct State;
  const nlohmann::json& find(const std::string& key) const;

  std::string path_;
  std::unique_ptr<State> state_;
};

// The candidate with the smallest edit distance to `name`, or nothing when none is close enough to be a typo.
std::optional<std::string> nearest_name(const std::string& name, const std::vector<std::string>& candidates);

}  // namespace skipper
