// What memory a process of this host uses now.
#pragma once

#include <cstdint>
#include <optional>

namespace skipper {

// Resident bytes (VmRSS of /proc), shared pages included; nothing when there is no such process.
std::optional<int64_t> resident_bytes(int64_t pid);

}  // namespace skipper
