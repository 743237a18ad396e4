// What the matrices of a model multiply, seen while it runs.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "experts/expert_store.h"
#include "tensor/device_runtime.h"
#include "tensor/tensor.h"

namespace skipper {

// Which matrices read the rows.
enum class MatrixInput : uint8_t {
  kAttention,        // q, k and v
  kAttentionOutput,  // o
  kGateUp,           // gate and up, of a dense layer or of experts
  kDown,             // down, of a dense layer or of experts
  kHead,
};

// Valid during the call only.
struct ObservedRows {
  MatrixInput input = MatrixInput::kHead;
  int layer = 0;       // decoder layer; of experts the MoE layer, as in ExpertId; 0 for the head
  const Tensor& rows;  // [T, K] bf16 or f32, before they are rounded to what the matrix takes
  // Of experts: slots[e] reads the rows r of [row_offsets[e], row_offsets[e + 1]), which are rows[row_index[r]], or rows[r]
  // without an index. Both [...] i32.
  std::span<const ExpertSlot> slots = {};
  const Tensor* row_index = nullptr;
  const Tensor* row_offsets = nullptr;
};

// Called on the engine thread before the product. Which rows come together depends on the batch, their bits do not.
using ActivationObserver = std::function<void(const ObservedRows& rows, Stream& stream)>;

}  // namespace skipper
