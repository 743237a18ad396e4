// The identity of a checkpoint, which operating points, plans and calibrations name.
#pragma once

#include <filesystem>
#include <string>

namespace skipper {

// FNV-1a, 64 bits, as 16 hexadecimal digits, over: config.json, a zero byte, and the weight index, which is
// model.safetensors.index.json or, for a single file, the JSON header of model.safetensors. Bytes as they are: a reformatted
// config.json is another model. The weights themselves are not read. Throws InvalidFile.
std::string model_fingerprint(const std::filesystem::path& directory);

}  // namespace skipper
