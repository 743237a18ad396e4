#include "launcher/generation_defaults.h"

#include <nlohmann/json.hpp>

#include "base/json_fields.h"

namespace skipper {

GenerationDefaults read_generation_defaults(const std::filesystem::path& model_directory) {
  GenerationDefaults defaults;
  const std::filesystem::path path = model_directory / "generation_config.json";
  if (!std::filesystem::exists(path)) return defaults;
  const nlohmann::json json = read_json_file(path, size_t{1} << 20);
  const JsonFields fields(json, path.string());
  defaults.temperature = fields.optional_number("temperature", defaults.temperature, 0.0, 100.0);
  defaults.top_p = fields.optional_number("top_p", defaults.top_p, 0.0, 1.0);
  defaults.top_k = fields.optional_int("top_k", defaults.top_k, 0, 1 << 24);
  if (!fields.optional_bool("do_sample", true)) defaults.temperature = 0.0;
  return defaults;
}

}  // namespace skipper
