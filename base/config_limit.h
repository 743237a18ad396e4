// The check behind every validate() of a config struct.
#pragma once

#include <cstdint>

namespace skipper {

struct ConfigLimit {
  const char* key;  // full path in the config file: "engine.max_tokens_per_step"
  int64_t value;
  int64_t min;
  int64_t max;
};

// Throws InvalidFile naming key, value and range when the value lies outside.
void require(const ConfigLimit& limit);

}  // namespace skipper
