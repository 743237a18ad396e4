// The figures of model_perf as a table for people and as JSON for programs.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "bench/model_benchmark.h"

namespace skipper {

// Samples of one quantity, in the order they were taken; never empty.
struct Samples {
  std::vector<double> values;

  double min() const;
  double median() const;
  double max() const;
};

struct CaseReport {
  BenchmarkCase benchmark;
  StepWork work;
  Samples tokens_per_second;
};

struct ModelReport {
  ModelBenchmarkConfig config;
  int num_ranks = 1;
  int threads_per_rank = 1;
  int64_t num_experts = 0;  // of a layer
  std::vector<CaseReport> cases;
  Samples read_bytes_per_second;  // of main memory, all ranks together
};

// {"prefill": {"512": best tokens/s, ...}, "decode": {"1": ...}, "details": {...}, ...}
nlohmann::json to_json(const ModelReport& report);
std::string to_table(const ModelReport& report);

}  // namespace skipper
