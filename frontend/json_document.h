// Strict parse of JSON that strangers send: bounded depth and size, no duplicate keys, nothing after the document.
#pragma once

#include <cstddef>
#include <nlohmann/json_fwd.hpp>
#include <string_view>

namespace skipper {

struct JsonLimits {
  size_t max_depth = 32;
  size_t max_values = 262'144;  // objects, lists, keys and scalars together
};

// Refuses invalid UTF-8, lone surrogates, NaN, Infinity and numbers that overflow a double. Throws InvalidRequest without param,
// with the byte offset where there is one.
nlohmann::json parse_json_document(std::string_view text, const JsonLimits& limits);

}  // namespace skipper
