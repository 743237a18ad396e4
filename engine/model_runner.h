// One rank's part of a step: plan → BatchInput → forward → sampled tokens. The same code on every rank.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "cluster/step_plan.h"
#include "engine/engine_config.h"
#include "engine/generation_request.h"
#include "engine/reference_store.h"
#include "engine/sampler.h"
#include "model/batch_input.h"
#include "model/kv_cache.h"
#include "model/multimodal_model.h"

namespace skipper {

// Owns the rank's sequences; its KV cache and its step buffers are allocated once. Engine thread only.
class ModelRunner {
 public:
  // token_classes[id] = class of vocabulary entry `id`, one per row of the logits.
  ModelRunner(MultimodalModel& model, KvCache& cache, const EngineConfig& config, std::vector<TokenClass> token_classes);
  ~ModelRunner();

  // Forgets released sequences, takes the admitted ones (encoded, one after the other), runs the forward pass that all ranks
  // make together, and samples. results = one entry per sequence of the plan, in its order.
  void run(const RankPlan& plan, const ForwardShape& shape, std::span<const std::byte> admissions, Stream& stream,
           std::vector<SequenceResult>& results);

  // Sees the plan of each step before its forward pass; off by default.
  void set_step_observer(std::function<void(const RankPlan&)> observer) { step_observer_ = std::move(observer); }

  // Forgets sequences without a step.
  void release(std::span<const uint64_t> sequence_ids);
  // Predictions that scored prompts left here; between steps.
  ReferenceStore& references() { return references_; }

 private:
  struct LocalSequence;
  struct StepBuffers;

  void admit(std::span<const std::byte> encoded, Stream& stream);
  BatchInput build_batch(const RankPlan& plan);
  void append_tokens(const SequenceStep& step, LocalSequence& sequence, int64_t sequence_index, BatchInput& batch);
  void append_vision_spans(const SequenceStep& step, const LocalSequence& sequence, int64_t first_token, BatchInput& batch) const;
  void append_logit_rows(const SequenceStep& step, const LocalSequence& sequence, int64_t first_token, BatchInput& batch);
  void read_logits(const SequenceStep& step, LocalSequence& sequence, StepOutput& output, int64_t& row, SequenceResult& result);
  int32_t next_token(StepOutput& output, int64_t row) const;
  // Logits of the token at position + 1, which is scored.
  void score(LocalSequence& sequence, int64_t position, std::span<const float> logits);
  // usage [n, columns] i32 of the sequence's tokens in this step.
  void read_usage(const Tensor& usage, SequenceResult& result) const;
  LocalSequence& local(uint64_t sequence_id);

  MultimodalModel& model_;
  KvCache& cache_;
  EngineConfig config_;
  std::vector<TokenClass> token_classes_;
  std::map<uint64_t, LocalSequence> sequences_;
  ReferenceStore references_;  // outlive the sequences that they were kept of
  std::unique_ptr<StepBuffers> buffers_;
  std::function<void(const RankPlan&)> step_observer_;
};

}  // namespace skipper
