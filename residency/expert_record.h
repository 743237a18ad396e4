// One expert as bytes: how it lies on disk and in a frame of the cache.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "experts/expert_id.h"
#include "experts/expert_store.h"

namespace skipper {

// What all experts of a model share.
struct ExpertShape {
  int64_t hidden_size = 0;        // H
  int64_t intermediate_size = 0;  // I
  // What rows become before they meet BF16 weights, as in ExpertStoreConfig.
  ActivationFormat bf16_activations = ActivationFormat::kBF16;
};

// Bytes of a record: both matrices, each on a multiple of 64 bytes, in whole blocks of a direct read.
size_t record_bytes(const WeightFormat& format, const ExpertShape& shape);

// The matrices of the record at `memory`, which outlives them.
ExpertMatrices record_at(std::byte* memory, const WeightFormat& format, const ExpertShape& shape);

// Copies an expert into the record at `memory`, padding as zeros.
void fill_record(const ExpertMatrices& matrices, const ExpertShape& shape, std::byte* memory);

}  // namespace skipper
