#include "tests/model/prompt_fixture.h"

#include <string>

#include "tensor/safetensors.h"

namespace skipper {
namespace {

template <typename T>
std::vector<T> values(const SafetensorsFile& file, const std::string& name) {
  const Tensor& tensor = file.tensors().at(name);
  const auto elements = tensor.span<T>();
  return {elements.begin(), elements.end()};
}

std::vector<ImagePatches> read_images(const SafetensorsFile& file, const std::string& prefix) {
  const std::vector<int32_t> grids = values<int32_t>(file, prefix + "grids");
  const Tensor& pixels = file.tensors().at(prefix + "pixels");
  const uint8_t* next = pixels.data<uint8_t>();
  std::vector<ImagePatches> images;
  for (size_t i = 0; i < grids.size(); i += 3) {
    ImagePatches image{grids[i], grids[i + 1], grids[i + 2], {}};
    const int64_t count = image.num_patches() * pixels.dim(1);
    for (int64_t j = 0; j < count; ++j) image.pixels.push_back((static_cast<float>(*next++) - 127.5f) / 127.5f);
    images.push_back(std::move(image));
  }
  return images;
}

PromptFixture read_prompt(const SafetensorsFile& file, const std::string& prefix) {
  PromptFixture prompt;
  prompt.token_ids = values<int32_t>(file, prefix + "token_ids");
  prompt.rows = values<int32_t>(file, prefix + "rows");
  prompt.logits = values<float>(file, prefix + "logits");
  prompt.bf16_error = values<float>(file, prefix + "bf16_error");
  prompt.bf16_kl = values<float>(file, prefix + "bf16_kl");
  prompt.router_margin = values<float>(file, prefix + "router_margin");
  if (file.tensors().contains(prefix + "pixels")) {
    prompt.rotary = values<int32_t>(file, prefix + "rotary");
    prompt.images = read_images(file, prefix);
  }
  return prompt;
}

}  // namespace

std::vector<PromptFixture> read_prompts(const std::filesystem::path& path) {
  const SafetensorsFile file(path);
  std::vector<PromptFixture> prompts;
  while (file.tensors().contains(std::to_string(prompts.size()) + ".token_ids")) {
    prompts.push_back(read_prompt(file, std::to_string(prompts.size()) + "."));
  }
  return prompts;
}

std::vector<ImageGrid> grids_of(const std::vector<ImagePatches>& images) {
  std::vector<ImageGrid> grids;
  for (const ImagePatches& image : images) grids.push_back({image.grid_t, image.grid_h, image.grid_w});
  return grids;
}

std::filesystem::path demo_model() { return std::filesystem::path(SKIPPER_SOURCE_DIR) / "models" / "demo"; }

std::filesystem::path model_fixture(const std::string& name) {
  return std::filesystem::path(SKIPPER_SOURCE_DIR) / "tests" / "model" / "fixtures" / name;
}

}  // namespace skipper
