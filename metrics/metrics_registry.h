// Every metric of the server: its name, help, type and labels in one place, and the text that GET /metrics answers.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "metrics/latency_histogram.h"

namespace skipper {

// Sums since start over all ranks, shaped like expert_parallel's TrafficCounters, which this folder may not know.
// Hops: local, node, network. Token classes: text, vision, protected. Directions: dispatch, combine.
struct TrafficTotals {
  static constexpr size_t kHops = 3;
  static constexpr size_t kTokenClasses = 3;
  static constexpr size_t kDirections = 2;
  using BytesByHopAndClass = std::array<std::array<int64_t, kTokenClasses>, kHops>;

  std::array<BytesByHopAndClass, kDirections> payload_bytes{};
  std::array<BytesByHopAndClass, kDirections> saved_bytes{};
  std::array<std::array<int64_t, kHops>, kDirections> wire_bytes{};
  std::array<int64_t, kTokenClasses> pairs_on_shadows{};
};

// What the engine has in hand at this moment.
struct EngineGauges {
  int64_t num_running = 0;
  int64_t num_waiting = 0;
  double kv_cache_usage = 0.0;  // 0 to 1
  int64_t level = 0;            // the global one
  int64_t num_level_changes = 0;  // since start
  int64_t num_dispatch_reruns = 0;  // since start
};

// How evenly the last steps fell on experts and ranks, over all ranks.
struct LoadGauges {
  struct Layer {
    int moe_layer = 0;
    std::string_view token_class;      // a literal: "text", "vision" or "all"
    double rank_max_over_mean = 1.0;
    double rank_gini = 0.0;
    double expert_gini = 0.0;
  };
  double rank_max_over_mean = 1.0;  // of the steps: Σ largest ÷ Σ mean over the layers
  int64_t num_alarms = 0;           // since start
  std::vector<Layer> layers;
};

// One MoE layer and phase: whether its tokens no longer skip because deciding costs more than it saves, and by what figures.
struct SkipSwitchGauge {
  bool is_off = false;
  double deciding_seconds = 0.0;  // in the last window of steps that told
  double saved_seconds = 0.0;
};

// What comparing experts with their reference has shown; without a guard nothing of it is exported.
struct GuardGauges {
  bool is_on = false;
  bool serves_reference = false;
  double relative_error = 0.0;    // of all rows compared since start
  double worst_over_allowed = 0.0;  // the worst expert's error over what it may be, now
  double mean_kl = 0.0;           // nats per token, of the last answers scored
  int64_t num_rows = 0;           // compared since start
  int64_t num_scored_tokens = 0;  // since start
  int64_t num_rollbacks = 0;      // since start
};

// The plan that serves, and how servers came to it; without policies nothing of it is exported.
struct PolicyGauges {
  std::string policy;         // that serves
  int64_t version = 0;
  int64_t num_switches = 0;   // since start
  int64_t num_failures = 0;   // since start
  int64_t moved_bytes = 0;    // since start, over all ranks
  double staging_seconds = 0.0;  // since start, on the slowest rank of each switch
};

// What experts on disk have meant for one rank since its start; without them nothing of it is exported.
struct DiskTotals {
  int64_t num_in_memory = 0;  // needs of experts that rest in memory
  int64_t num_hits = 0;       // needs of experts of the disk: in the cache; still being read; to be read
  int64_t num_late = 0;
  int64_t num_misses = 0;
  int64_t num_foreseen = 0;   // read ahead; of these needed later, and given up before
  int64_t num_used = 0;
  int64_t num_wasted = 0;
  int64_t num_bytes = 0;      // read
  double busy_seconds = 0.0;     // of the disk
  double exposed_seconds = 0.0;  // layers waited
  int64_t num_cached = 0;        // experts that the cache holds
  bool foresees = false;         // now
  int64_t num_times_off = 0;     // reading ahead was turned off
};

// Thread-safe. Each call takes one short lock; none allocates on the engine's path.
class MetricsRegistry {
 public:
  MetricsRegistry(std::string model_name, int rank_count);

  // Engine thread.
  void record_step(double seconds);
  void set_engine_gauges(const EngineGauges& gauges);
  void set_traffic(const TrafficTotals& totals);
  void set_loads(LoadGauges loads);
  // [MoE layer][prompt, generated], and how often one of them changed since start.
  void set_skip_switches(std::span<const SkipSwitchGauge> switches, int64_t num_changes);
  void set_guard(const GuardGauges& gauges);
  void set_policy(const PolicyGauges& gauges);
  void set_disks(std::span<const DiskTotals> of_ranks);
  // (token, expert) pairs of one step over all ranks: [MoE layer][prompt, generated][token class][run, skipped]. Every step has
  // the same layers.
  void record_pairs(std::span<const int64_t> counts);

  // Frontend: tokens and latencies as clients see them, measured from the arrival of the HTTP request.
  void record_prompt(int64_t num_tokens);
  void record_first_token(double seconds_since_arrival);
  void record_token_interval(double seconds);
  void record_generated_tokens(int64_t num_tokens);
  void record_finished_request(std::string_view finished_reason, double seconds_since_arrival);
  // `path` must come from a fixed set ("other" for unknown ones): it is a label.
  void record_http_request(std::string_view path, int status);

  // Prometheus text exposition format.
  std::string text() const;

 private:
  friend class MetricsExposition;  // turns the values into families

  const std::string model_name_;
  const int rank_count_;

  mutable std::mutex mutex_;
  EngineGauges gauges_;
  TrafficTotals traffic_;
  LoadGauges loads_;
  std::vector<SkipSwitchGauge> skip_switches_;
  int64_t num_skip_switches_ = 0;
  GuardGauges guard_;
  PolicyGauges policy_;
  std::vector<DiskTotals> disks_;  // by rank
  std::vector<int64_t> pairs_;  // sums of record_pairs()
  int64_t num_steps_ = 0;
  int64_t prompt_tokens_ = 0;
  int64_t generation_tokens_ = 0;
  std::map<std::string, int64_t, std::less<>> finished_requests_;
  std::map<std::pair<std::string, int>, int64_t> http_requests_;
  LatencyHistogram step_seconds_;
  LatencyHistogram first_token_seconds_;
  LatencyHistogram token_interval_seconds_;
  LatencyHistogram request_seconds_;
};

}  // namespace skipper
