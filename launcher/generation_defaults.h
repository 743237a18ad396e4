// What a request gets that does not ask: the checkpoint's own sampling settings.
#pragma once

#include <cstdint>
#include <filesystem>

namespace skipper {

struct GenerationDefaults {
  double temperature = 1.0;  // 0 when the checkpoint says do_sample false
  double top_p = 1.0;
  int64_t top_k = 0;
};

// Reads generation_config.json; a checkpoint without one gets OpenAI's defaults. Throws InvalidFile naming file and key.
GenerationDefaults read_generation_defaults(const std::filesystem::path& model_directory);

}  // namespace skipper
