// Images inside a request: `data:image/png;base64,...`, and nothing that would make the server fetch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace skipper {

// The decoded bytes. Strict: media type image/png or image/jpeg (image/jpg passes), base64 of the standard alphabet, padded,
// without blanks. `max_bytes` is checked before decoding. `param` is the path of the request's field. Throws InvalidRequest.
std::vector<uint8_t> decode_data_uri(std::string_view uri, size_t max_bytes, const std::string& param);

}  // namespace skipper
