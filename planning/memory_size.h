// Sizes of memory as people write them.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace skipper {

// "2G", "512M", "1.5T", "24Gi": K, M, G and T are powers of 1000, with an i of 1024; without a letter, bytes. Throws
// InvalidRequest naming `where` and the text.
size_t parse_memory_size(const std::string& text, const std::string& where);
// The same with commas between several.
std::vector<size_t> parse_memory_sizes(const std::string& text, const std::string& where);

// "2.50 GB".
std::string memory_text(size_t num_bytes);

}  // namespace skipper
