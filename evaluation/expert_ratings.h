// What is known of single experts besides the router's opinion: inputs of the rules of ACE's and DiEP's kind, and their file.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "cluster/operating_point.h"

namespace skipper {

// Numbers of all MoE layers, layer by layer.
struct ExpertRatings {
  std::string model_fingerprint = {};
  std::string data = {};      // name of the samples that ran
  int64_t num_rows = 0;  // of each layer on which answers were compared
  int num_moe_layers = 0;
  int num_experts = 0;

  // From weights alone, each divided by its layer's mean. [layer · expert]
  std::vector<float> capacity = {};  // how long an expert's answers to random rows are
  std::vector<float> response = {};  // how long its answer is to the row that the router sends to it before all others

  // From samples.
  // Linear CKA of the answers of two experts, divided by the mean of different ones. [layer · expert · expert]
  std::vector<float> similarity = {};
  std::array<std::vector<float>, kNumSkippableClasses> second_share = {};  // median of p_2 / p_1. [class][layer]

  // The score of both views of an expert: a pair is low only where both say so, and the larger number is what speaks against it.
  std::vector<float> scale() const;
};

std::string to_json(const ExpertRatings& ratings);

// Reads a file of `skipper experts`. Throws InvalidFile naming file and key: another model (both named), another number of layers
// or experts, numbers that are none or negative.
ExpertRatings load_expert_ratings(const std::filesystem::path& path, const ModelIdentity& model);

}  // namespace skipper
