// The demo model behind an engine on thread ranks, driven request by request.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "cluster/operating_point.h"
#include "engine/engine.h"
#include "evaluation/request_driver.h"

namespace skipper {

// The experts of each MoE layer in one format.
struct DemoPolicy {
  std::string name;
  std::vector<WeightFormat> formats;  // [MoE layer]
};

struct DemoEngineOptions {
  int num_ranks = 1;
  EngineConfig engine;
  // Levels above 0; empty for level 0 alone.
  std::vector<OperatingPoint> operating_points;
  // Sees every MoE layer's routing after skipping, on the rank's own thread.
  std::function<void(int rank, const Routing& kept)> routing_observer;
  SkipGateConfig gate = {.switch_off = false};
  WeightConfig weights = {};
  GuardConfig guard = {};  // on: with reference experts of the demo model
  // Sees each rank's model before the first step.
  std::function<void(int rank, MultimodalModel& model)> prepare_model = nullptr;
  // Whose experts are switched; the first one's serve from start. Empty: those of `weights` serve.
  std::vector<DemoPolicy> policies = {};
  int num_phases = 1;  // `drive` is called so often, each time with the others following
};

// What the driving body can use; rank 0's.
struct DemoEngine {
  Engine& engine;
  RequestQueue& queue;
  RequestDriver& driver;
  MultimodalModel& model;
};

// Starts the ranks, calls `drive` on rank 0 while the others follow, and ends them.
void with_demo_engine(const DemoEngineOptions& options, const std::function<void(DemoEngine&)>& drive);

// Small limits that make steps, chunks and blocks run out early.
EngineConfig demo_engine_config();

// Chat prompts of the demo model without its template engine: a question, alone or after one calibration picture.
GenerationRequest demo_text_request(const std::string& question);
GenerationRequest demo_image_request(const std::string& image_name, const std::string& question);

// An operating point with equal alpha over the demo model's layers.
OperatingPoint demo_operating_point(float tau_text, float tau_vision);

}  // namespace skipper
