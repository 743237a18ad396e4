// Names of requests: the client's X-Request-Id made safe, or a new random one.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace skipper {

// 64 random bits of the system, never of a seeded generator.
uint64_t random_bits();

// "prefix-" and 32 random hexadecimal digits.
std::string random_id(std::string_view prefix);

// At most 128 letters, digits and -_.: of `given`, so that it can stand in headers and logs; a random one when nothing is left.
std::string safe_request_id(std::string_view given);

}  // namespace skipper
