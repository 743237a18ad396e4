// Where a rank keeps its experts of the disk, and in how much memory it reads them.
#pragma once

#include <cstddef>
#include <filesystem>

#include "residency/residence_parts.h"
#include "residency/residency_config.h"

namespace skipper {

struct DiskConfig {
  std::filesystem::path directory;
  size_t cache_bytes = 0;  // memory for experts that were read
  ResidencyConfig rules = {};
  ResidenceParts parts = {};  // in place of rules
};

}  // namespace skipper
