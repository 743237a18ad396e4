// Prompts with transformers' logits, as tools/make_logits_fixtures.py writes them.
#pragma once

#include <filesystem>
#include <vector>

#include "model/image_patches.h"
#include "model/rotary_positions.h"
#include "tensor/tensor.h"

namespace skipper {

struct PromptFixture {
  std::vector<int32_t> token_ids;
  std::vector<int32_t> rows;          // R positions whose logits are recorded
  std::vector<float> logits;          // [R, V], FP32
  std::vector<float> bf16_error;      // [R], largest error of transformers' own BF16
  std::vector<float> bf16_kl;         // [R], its divergence from FP32, nats
  std::vector<float> router_margin;   // [R], logit of the last chosen expert minus the first left out, least over layers
  std::vector<int32_t> rotary;        // [T, 3], empty for text
  std::vector<ImagePatches> images;
};

std::vector<PromptFixture> read_prompts(const std::filesystem::path& path);

std::vector<ImageGrid> grids_of(const std::vector<ImagePatches>& images);

// Paths in the source tree.
std::filesystem::path demo_model();
std::filesystem::path model_fixture(const std::string& name);

}  // namespace skipper
