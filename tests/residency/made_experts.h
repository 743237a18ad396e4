// Small experts made up for tests, and the file that holds them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "experts/gate_up_panels.h"
#include "residency/direct_file.h"
#include "residency/expert_file.h"

namespace skipper {

inline constexpr ExpertShape kMadeShape{.hidden_size = 37, .intermediate_size = 19};

inline Tensor made_weights(const Shape& shape, uint32_t seed) {
  std::mt19937 generator(seed);
  Tensor weights = Tensor::empty(shape, DType::kF32);
  for (float& value : weights.span<float>()) value = std::normal_distribution<float>()(generator);
  return weights;
}

inline ExpertMatrices made_expert(const WeightFormat& format, uint32_t seed) {
  const int64_t hidden = kMadeShape.hidden_size, width = kMadeShape.intermediate_size;
  ExpertMatrices expert{empty_packed(format, joined_shape({width, hidden})), empty_packed(format, {hidden, width})};
  pack_gate_up(made_weights({width, hidden}, seed), made_weights({width, hidden}, seed + 1), expert.gate_up);
  pack_into(made_weights({hidden, width}, seed + 2), expert.down);
  if (format.kind == WeightKind::kF32) expert.gate_up.activations = expert.down.activations = ActivationFormat::kF32;
  return expert;
}

// A hash as good as any other here (FNV-1a), of 16 digits.
inline std::string made_hash(const ExpertMatrices& matrices) {
  uint64_t hash = 14695981039346656037u;
  for (const PackedMatrix* matrix : {&matrices.gate_up, &matrices.down}) {
    for (const Tensor* tensor : {&matrix->codes, &matrix->scales, &matrix->zeros}) {
      for (size_t i = 0; tensor->defined() && i < tensor->num_bytes(); ++i) {
        hash = (hash ^ static_cast<uint64_t>(tensor->bytes()[i])) * 1099511628211u;
      }
    }
  }
  std::string text(16, '0');
  for (char& digit : text) {
    digit = "0123456789abcdef"[hash & 15];
    hash >>= 4;
  }
  return text;
}

// Experts 0 to n − 1 of two layers in turn, in formats that take turns, written to a file.
class MadeExperts {
 public:
  MadeExperts(const std::filesystem::path& path, int count) {
    const char* formats[] = {"int4-g32", "bf16", "int8-g64", "int3a-g32", "f32"};
    content_.subject = {.model_fingerprint = "0123456789abcdef",
                        .checkpoint = "now",
                        .hidden_size = kMadeShape.hidden_size,
                        .intermediate_size = kMadeShape.intermediate_size};
    for (int i = 0; i < count; ++i) {
      content_.records.push_back({.id = {i % 2, i / 2}, .format = parse_weight_format(formats[i % 5], "test")});
      experts_.push_back(made_expert(content_.records.back().format, static_cast<uint32_t>(100 * i)));
    }
    wanted_ = content_;
    lay_out(content_);
    ExpertFileWriter writer(path, content_);
    for (size_t i = 0; i < experts_.size(); ++i) writer.write(i, experts_[i], made_hash(experts_[i]));
    content_ = writer.commit();
  }

  const ExpertFileContent& content() const { return content_; }
  const ExpertFileContent& wanted() const { return wanted_; }  // without hashes and offsets
  const ExpertMatrices& expert(size_t index) const { return experts_[index]; }

 private:
  ExpertFileContent content_;
  ExpertFileContent wanted_;
  std::vector<ExpertMatrices> experts_;
};

}  // namespace skipper
