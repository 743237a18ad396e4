#include <nlohmann/json.hpp>

#include "base/json_fields.h"
#include "processor/image_processor.h"

namespace skipper {
namespace {

constexpr int64_t kMaxPixels = int64_t{1} << 28;
constexpr const char* kKeysWithoutConsequence[] = {"processor_class", "feature_extractor_type", "disable_grouping",
                                                   "_valid_processor_keys"};
constexpr int64_t kBicubic = 3;  // Pillow's number, the one transformers writes

// A switch of the transformers class that is done here only one way.
void require_switch(const JsonFields& fields, const std::string& key, bool needed) {
  if (!fields.has(key) || fields.optional_bool(key, needed) == needed) return;
  fields.fail(key, needed ? "false is not supported" : "true is not supported");
}

void require_absent(const JsonFields& fields, const std::string& key) {
  if (fields.has(key)) fields.fail(key, "is not supported; remove it or set it to null");
}

void require_name(const JsonFields& fields, const std::string& key, const std::vector<std::string>& names) {
  if (!fields.has(key)) return;
  const std::string name = fields.required_string(key);
  for (const std::string& supported : names) {
    if (name == supported) return;
  }
  fields.fail(key, "\"" + name + "\" is not supported; \"" + names.front() + "\" is");
}

// Keys without a field in our config: each is either of no consequence here or must hold the one value we compute with.
void check_fixed_keys(const JsonFields& fields) {
  require_name(fields, "image_processor_type", {"Qwen2VLImageProcessorFast", "Qwen2VLImageProcessor"});
  require_name(fields, "data_format", {"channels_first"});
  for (const char* key : {"do_resize", "do_convert_rgb"}) require_switch(fields, key, true);
  for (const char* key : {"do_center_crop", "do_pad", "default_to_square"}) require_switch(fields, key, false);
  for (const char* key : {"crop_size", "pad_size", "input_data_format", "device", "return_tensors"}) {
    require_absent(fields, key);
  }
  if (const int64_t resample = fields.optional_int("resample", kBicubic, 0, 5); resample != kBicubic) {
    fields.fail("resample", std::to_string(resample) + " is not supported; 3 (bicubic) is");
  }
  for (const char* key : kKeysWithoutConsequence) fields.has(key);
}

void read_pixel_range(const JsonFields& fields, ImageProcessorConfig& config) {
  if (const std::optional<JsonFields> size = fields.optional_object("size")) {
    config.min_pixels = size->required_int("shortest_edge", 1, kMaxPixels);
    config.max_pixels = size->required_int("longest_edge", 1, kMaxPixels);
    for (const char* key : {"min_pixels", "max_pixels"}) require_absent(*size, key);
    size->reject_unknown_keys();
  }
  config.min_pixels = fields.optional_int("min_pixels", config.min_pixels, 1, kMaxPixels);
  config.max_pixels = fields.optional_int("max_pixels", config.max_pixels, 1, kMaxPixels);
  if (config.min_pixels > config.max_pixels) {
    fields.fail("size", "shortest_edge " + std::to_string(config.min_pixels) + " exceeds longest_edge " +
                            std::to_string(config.max_pixels));
  }
}

void read_three(const JsonFields& fields, const std::string& key, double min, std::array<double, 3>& values) {
  if (!fields.has(key)) return;
  const std::vector<double> numbers = fields.optional_numbers(key, min, 1e6);
  if (numbers.size() != values.size()) fields.fail(key, "has " + std::to_string(numbers.size()) + " values, not 3");
  std::copy(numbers.begin(), numbers.end(), values.begin());
}

}  // namespace

ImageProcessorConfig read_image_processor_config(const std::filesystem::path& path) {
  const nlohmann::json json = read_json_file(path, size_t{1} << 20);
  const JsonFields fields(json, path.string());
  ImageProcessorConfig config;
  check_fixed_keys(fields);
  read_pixel_range(fields, config);
  config.patch_size = fields.optional_int("patch_size", config.patch_size, 1, 256);
  config.temporal_patch_size = fields.optional_int("temporal_patch_size", config.temporal_patch_size, 1, 16);
  config.merge_size = fields.optional_int("merge_size", config.merge_size, 1, 16);
  config.rescales = fields.optional_bool("do_rescale", config.rescales);
  config.normalizes = fields.optional_bool("do_normalize", config.normalizes);
  config.rescale_factor = fields.optional_number("rescale_factor", config.rescale_factor, 1e-9, 1e6);
  read_three(fields, "image_mean", -1e6, config.mean);
  read_three(fields, "image_std", 1e-9, config.std);
  fields.reject_unknown_keys();
  return config;
}

}  // namespace skipper
