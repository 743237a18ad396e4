#include "metrics/metrics_registry.h"

#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <functional>
#include <initializer_list>
#include <limits>
#include <vector>

namespace skipper {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

constexpr std::array<std::string_view, TrafficTotals::kHops> kHopLabels = {"local", "node", "network"};
constexpr std::array<std::string_view, TrafficTotals::kTokenClasses> kClassLabels = {"text", "vision", "protected"};
constexpr std::array<std::string_view, 2> kPhaseLabels = {"prompt", "generated"};
constexpr std::array<std::string_view, 2> kOutcomeLabels = {"run", "skipped"};
constexpr std::array<std::string_view, TrafficTotals::kDirections> kDirectionLabels = {"dispatch", "combine"};

struct Label {
  std::string_view name;
  std::string_view value;
};

ClientMetric labelled(std::initializer_list<Label> labels) {
  ClientMetric metric;
  for (const Label& label : labels) metric.label.push_back({std::string(label.name), std::string(label.value)});
  return metric;
}

ClientMetric counter(std::initializer_list<Label> labels, int64_t value) {
  ClientMetric metric = labelled(labels);
  metric.counter.value = static_cast<double>(value);
  return metric;
}

ClientMetric seconds_counter(std::initializer_list<Label> labels, double value) {
  ClientMetric metric = labelled(labels);
  metric.counter.value = value;
  return metric;
}

ClientMetric gauge(std::initializer_list<Label> labels, double value) {
  ClientMetric metric = labelled(labels);
  metric.gauge.value = value;
  return metric;
}

ClientMetric histogram(std::initializer_list<Label> labels, const LatencyHistogram& latencies) {
  ClientMetric metric = labelled(labels);
  uint64_t cumulative = 0;
  for (int i = 0; i < LatencyHistogram::kNumBounds; ++i) {
    cumulative += static_cast<uint64_t>(latencies.bucket_count(i));
    metric.histogram.bucket.push_back({cumulative, LatencyHistogram::upper_bound(i)});
  }
  const auto count = static_cast<uint64_t>(latencies.count());
  metric.histogram.bucket.push_back({count, std::numeric_limits<double>::infinity()});
  metric.histogram.sample_count = count;
  metric.histogram.sample_sum = latencies.sum_seconds();
  return metric;
}

}  // namespace

// Reads the registry under its lock, one family after the other.
class MetricsExposition {
 public:
  explicit MetricsExposition(const MetricsRegistry& registry) : values_(registry), model_{"model_name", registry.model_name_} {}

  std::vector<MetricFamily> families() {
    add_engine_families();
    add_request_families();
    add_traffic_families();
    add_pair_family();
    add_load_families();
    add_switch_families();
    add_guard_families();
    add_policy_families();
    if (!values_.disks_.empty()) add_disk_families();
    add_http_family();
    return std::move(families_);
  }

 private:
  using Bytes = std::array<TrafficTotals::BytesByHopAndClass, TrafficTotals::kDirections>;

  MetricFamily& family(std::string name, std::string help, MetricType type) {
    return families_.emplace_back(MetricFamily{std::move(name), std::move(help), type, {}});
  }

  void add_engine_families() {
    const EngineGauges& gauges = values_.gauges_;
    family("vllm:num_requests_running", "Requests that hold KV blocks and take part in steps.", MetricType::Gauge)
        .metric = {gauge({model_}, static_cast<double>(gauges.num_running))};
    family("vllm:num_requests_waiting", "Requests in the queue.", MetricType::Gauge)
        .metric = {gauge({model_}, static_cast<double>(gauges.num_waiting))};
    family("vllm:kv_cache_usage_perc", "Share of KV blocks in use, 1 is all.", MetricType::Gauge)
        .metric = {gauge({model_}, gauges.kv_cache_usage)};
    family("skipper_level", "Level that requests follow unless they name one.", MetricType::Gauge)
        .metric = {gauge({model_}, static_cast<double>(gauges.level))};
    family("skipper_level_changes_total", "Changes of that level.", MetricType::Counter)
        .metric = {counter({model_}, gauges.num_level_changes)};
    family("skipper_dispatch_reruns_total", "Decode steps run once more because rows between GPUs had found no room.",
           MetricType::Counter)
        .metric = {counter({model_}, gauges.num_dispatch_reruns)};
    family("skipper_rank_count", "Ranks of this job.", MetricType::Gauge)
        .metric = {gauge({model_}, static_cast<double>(values_.rank_count_))};
    family("skipper_steps_total", "Forward passes that all ranks made together.", MetricType::Counter)
        .metric = {counter({model_}, values_.num_steps_)};
    family("skipper_step_seconds", "Duration of a step.", MetricType::Histogram)
        .metric = {histogram({model_}, values_.step_seconds_)};
  }

  void add_request_families() {
    family("vllm:prompt_tokens_total", "Prompt tokens accepted, image placeholders included.", MetricType::Counter)
        .metric = {counter({model_}, values_.prompt_tokens_)};
    family("vllm:generation_tokens_total", "Tokens generated.", MetricType::Counter)
        .metric = {counter({model_}, values_.generation_tokens_)};
    MetricFamily& finished = family("vllm:request_success_total", "Choices that ended, by reason.", MetricType::Counter);
    for (const auto& [reason, count] : values_.finished_requests_) {
      finished.metric.push_back(counter({model_, {"finished_reason", reason}}, count));
    }
    family("vllm:time_to_first_token_seconds", "From the arrival of a request to its first token.", MetricType::Histogram)
        .metric = {histogram({model_}, values_.first_token_seconds_)};
    family("vllm:inter_token_latency_seconds", "Between two tokens of a choice.", MetricType::Histogram)
        .metric = {histogram({model_}, values_.token_interval_seconds_)};
    family("vllm:e2e_request_latency_seconds", "From the arrival of a request to its end.", MetricType::Histogram)
        .metric = {histogram({model_}, values_.request_seconds_)};
  }

  void add_traffic_families() {
    add_bytes("skipper_payload_bytes_total", "Hidden rows sent between ranks by the all-to-all.", values_.traffic_.payload_bytes);
    add_bytes("skipper_saved_bytes_total", "Payload bytes that skipping made needless.", values_.traffic_.saved_bytes);
    MetricFamily& wire = family("skipper_wire_bytes_total", "Payload with its metadata.", MetricType::Counter);
    for (size_t d = 0; d < TrafficTotals::kDirections; ++d) {
      for (size_t h = 0; h < TrafficTotals::kHops; ++h) {
        wire.metric.push_back(counter({model_, {"hop", kHopLabels[h]}, {"direction", kDirectionLabels[d]}},
                                      values_.traffic_.wire_bytes[d][h]));
      }
    }
    MetricFamily& shadows = family("skipper_pairs_on_shadows_total", "Pairs that ran on shadow copies, not at their owners.",
                                   MetricType::Counter);
    for (size_t c = 0; c < TrafficTotals::kTokenClasses; ++c) {
      shadows.metric.push_back(counter({model_, {"token_class", kClassLabels[c]}}, values_.traffic_.pairs_on_shadows[c]));
    }
  }

  void add_bytes(std::string name, std::string help, const Bytes& bytes) {
    MetricFamily& result = family(std::move(name), std::move(help), MetricType::Counter);
    for (size_t d = 0; d < TrafficTotals::kDirections; ++d) {
      for (size_t h = 0; h < TrafficTotals::kHops; ++h) {
        for (size_t c = 0; c < TrafficTotals::kTokenClasses; ++c) {
          const Label direction{"direction", kDirectionLabels[d]};
          result.metric.push_back(counter(
              {model_, {"hop", kHopLabels[h]}, {"token_class", kClassLabels[c]}, direction}, bytes[d][h][c]));
        }
      }
    }
  }

  void add_pair_family() {
    MetricFamily& pairs = family("skipper_pairs_total", "(token, expert) pairs the router chose; layers are MoE layers, from 0.",
                                 MetricType::Counter);
    for (size_t i = 0; i < values_.pairs_.size(); ++i) {
      const size_t token_class = i / kOutcomeLabels.size() % kClassLabels.size();
      const size_t phase = i / (kOutcomeLabels.size() * kClassLabels.size()) % kPhaseLabels.size();
      const std::string layer = std::to_string(i / (kOutcomeLabels.size() * kClassLabels.size() * kPhaseLabels.size()));
      pairs.metric.push_back(counter({model_,
                                      {"layer", layer},
                                      {"phase", kPhaseLabels[phase]},
                                      {"token_class", kClassLabels[token_class]},
                                      {"outcome", kOutcomeLabels[i % kOutcomeLabels.size()]}},
                                     values_.pairs_[i]));
    }
  }

  void add_load_families() {
    const LoadGauges& loads = values_.loads_;
    family("skipper_step_load_max_over_mean", "Load of the fullest ranks over the mean, all layers of the last steps; 1 is even.",
           MetricType::Gauge)
        .metric = {gauge({model_}, loads.rank_max_over_mean)};
    family("skipper_imbalance_alarms_total", "Times that figure stayed over --imbalance_alarm.", MetricType::Counter)
        .metric = {counter({model_}, loads.num_alarms)};
    add_layer_gauge("skipper_rank_load_max_over_mean", "Pairs on the fullest rank over the mean of the ranks; 1 is even.",
                    &LoadGauges::Layer::rank_max_over_mean);
    add_layer_gauge("skipper_rank_load_gini", "Gini coefficient of the pairs on each rank; 0 is even.",
                    &LoadGauges::Layer::rank_gini);
    add_layer_gauge("skipper_expert_load_gini", "Gini coefficient of the pairs on each expert; 0 is even.",
                    &LoadGauges::Layer::expert_gini);
  }

  void add_layer_gauge(std::string name, std::string help, double LoadGauges::Layer::*value) {
    MetricFamily& result = family(std::move(name), std::move(help), MetricType::Gauge);
    for (const LoadGauges::Layer& layer : values_.loads_.layers) {
      const std::string index = std::to_string(layer.moe_layer);
      result.metric.push_back(gauge({model_, {"layer", index}, {"token_class", layer.token_class}}, layer.*value));
    }
  }

  void add_switch_families() {
    add_switch_gauge("skipper_skipping_switched_off", "1 where tokens of a layer and phase do not skip: it costs too much.",
                     [](const SkipSwitchGauge& one) { return one.is_off ? 1.0 : 0.0; });
    add_switch_gauge("skipper_deciding_seconds", "What deciding took rank 0 in the last window of steps that told.",
                     [](const SkipSwitchGauge& one) { return one.deciding_seconds; });
    add_switch_gauge("skipper_deciding_saved_seconds", "What running the pairs skipped in that window would have taken.",
                     [](const SkipSwitchGauge& one) { return one.saved_seconds; });
    family("skipper_skip_switches_total", "Layers and phases switched off or on.", MetricType::Counter)
        .metric = {counter({model_}, values_.num_skip_switches_)};
  }

  void add_switch_gauge(std::string name, std::string help, double (*value)(const SkipSwitchGauge&)) {
    MetricFamily& result = family(std::move(name), std::move(help), MetricType::Gauge);
    for (size_t i = 0; i < values_.skip_switches_.size(); ++i) {
      const std::string layer = std::to_string(i / kPhaseLabels.size());
      const Label phase{"phase", kPhaseLabels[i % kPhaseLabels.size()]};
      result.metric.push_back(gauge({model_, {"layer", layer}, phase}, value(values_.skip_switches_[i])));
    }
  }

  void add_guard_families() {
    const GuardGauges& guard = values_.guard_;
    if (!guard.is_on) return;
    add_gauge("skipper_guard_serves_reference", "1 while reference experts serve instead of the plan's.", guard.serves_reference);
    add_gauge("skipper_guard_relative_error", "Of experts' outputs from their reference, over all rows compared.",
              guard.relative_error);
    add_gauge("skipper_guard_worst_over_allowed", "The worst expert's error over what its format may cost; over 1 it is wrong.",
              guard.worst_over_allowed);
    add_gauge("skipper_guard_kl", "Nats per token from the reference experts' predictions, over the last answers scored.",
              guard.mean_kl);
    add_counter("skipper_guard_rows_total", "Rows that reference experts have computed again.", guard.num_rows);
    add_counter("skipper_guard_scored_tokens_total", "Generated tokens that were predicted again.", guard.num_scored_tokens);
    add_counter("skipper_guard_rollbacks_total", "Times that reference experts took over.", guard.num_rollbacks);
  }

  void add_policy_families() {
    const PolicyGauges& policy = values_.policy_;
    if (policy.policy.empty()) return;
    family("skipper_policy_info", "1 for the policy that serves.", MetricType::Gauge)
        .metric = {gauge({model_, {"policy", policy.policy}}, 1.0)};
    add_gauge("skipper_policy_version", "Version of the experts that serve; it grows with every switch.",
              static_cast<double>(policy.version));
    add_counter("skipper_policy_switches_total", "Switches from one policy to another.", policy.num_switches);
    add_counter("skipper_policy_failures_total", "Switches that were given up.", policy.num_failures);
    add_counter("skipper_policy_moved_bytes_total", "New copies of experts made for switches, over all ranks.",
                policy.moved_bytes);
    family("skipper_policy_staging_seconds_total", "Making them ready, on the slowest rank.", MetricType::Counter)
        .metric = {seconds_counter({model_}, policy.staging_seconds)};
  }

  void add_disk_families() {
    add_expert_needs();
    add_foreseen();
    add_disk_counter("skipper_disk_read_bytes_total", "Read of experts on disk, foreseen ones included.", &DiskTotals::num_bytes);
    add_disk_seconds("skipper_disk_busy_seconds_total", "Reads were under way.", &DiskTotals::busy_seconds);
    add_disk_seconds("skipper_disk_exposed_seconds_total", "Layers waited for the disk.", &DiskTotals::exposed_seconds);
    add_disk_counter("skipper_disk_foresight_turned_off_total", "Times that reading ahead was turned off, as waits did not fall.",
                     &DiskTotals::num_times_off);
    add_disk_gauge("skipper_disk_foresight", "1 while experts of the next layer are read ahead by what foresees them.",
                   [](const DiskTotals& rank) { return rank.foresees ? 1.0 : 0.0; });
    add_disk_gauge("skipper_disk_cache_experts", "Experts of the disk that memory has room for.",
                   [](const DiskTotals& rank) { return static_cast<double>(rank.num_cached); });
  }

  void add_expert_needs() {
    MetricFamily& needs = family("skipper_expert_needs_total",
                                 "Experts that a layer ran in a step, by where they rest; of the disk's, found in the cache "
                                 "(hit), still being read (late) or to be read (miss).",
                                 MetricType::Counter);
    const auto add = [&](std::string_view tier, std::string_view outcome, int64_t DiskTotals::*value) {
      add_of_ranks(needs, {{"tier", tier}, {"outcome", outcome}}, value);
    };
    add("memory", "hit", &DiskTotals::num_in_memory);
    add("disk", "hit", &DiskTotals::num_hits);
    add("disk", "late", &DiskTotals::num_late);
    add("disk", "miss", &DiskTotals::num_misses);
  }

  void add_foreseen() {
    add_disk_counter("skipper_disk_foreseen_total", "Experts read ahead of need.", &DiskTotals::num_foreseen);
    MetricFamily& ended = family("skipper_disk_foreseen_ended_total", "Of these, needed later (used) or given up (wasted).",
                                 MetricType::Counter);
    add_of_ranks(ended, {{"outcome", "used"}}, &DiskTotals::num_used);
    add_of_ranks(ended, {{"outcome", "wasted"}}, &DiskTotals::num_wasted);
  }

  void add_of_ranks(MetricFamily& result, std::initializer_list<Label> labels, int64_t DiskTotals::*value) {
    for (size_t rank = 0; rank < values_.disks_.size(); ++rank) {
      ClientMetric metric = counter({model_, {"rank", std::to_string(rank)}}, values_.disks_[rank].*value);
      for (const Label& label : labels) metric.label.push_back({std::string(label.name), std::string(label.value)});
      result.metric.push_back(std::move(metric));
    }
  }

  void add_disk_counter(std::string name, std::string help, int64_t DiskTotals::*value) {
    add_of_ranks(family(std::move(name), std::move(help), MetricType::Counter), {}, value);
  }

  void add_disk_seconds(std::string name, std::string help, double DiskTotals::*value) {
    MetricFamily& result = family(std::move(name), std::move(help), MetricType::Counter);
    for (size_t rank = 0; rank < values_.disks_.size(); ++rank) {
      result.metric.push_back(seconds_counter({model_, {"rank", std::to_string(rank)}}, values_.disks_[rank].*value));
    }
  }

  void add_disk_gauge(std::string name, std::string help, double (*value)(const DiskTotals&)) {
    MetricFamily& result = family(std::move(name), std::move(help), MetricType::Gauge);
    for (size_t rank = 0; rank < values_.disks_.size(); ++rank) {
      result.metric.push_back(gauge({model_, {"rank", std::to_string(rank)}}, value(values_.disks_[rank])));
    }
  }

  void add_gauge(std::string name, std::string help, double value) {
    family(std::move(name), std::move(help), MetricType::Gauge).metric = {gauge({model_}, value)};
  }

  void add_counter(std::string name, std::string help, int64_t value) {
    family(std::move(name), std::move(help), MetricType::Counter).metric = {counter({model_}, value)};
  }

  void add_http_family() {
    MetricFamily& http = family("skipper_http_requests_total", "HTTP requests answered.", MetricType::Counter);
    for (const auto& [key, count] : values_.http_requests_) {
      const std::string status = std::to_string(key.second);
      http.metric.push_back(counter({{"path", key.first}, {"status", status}}, count));
    }
  }

  const MetricsRegistry& values_;
  const Label model_;
  std::vector<MetricFamily> families_;
};

MetricsRegistry::MetricsRegistry(std::string model_name, int rank_count)
    : model_name_(std::move(model_name)),
      rank_count_(rank_count),
      finished_requests_{{"stop", 0}, {"length", 0}, {"abort", 0}, {"error", 0}} {}

void MetricsRegistry::record_step(double seconds) {
  const std::lock_guard lock(mutex_);
  ++num_steps_;
  step_seconds_.observe(seconds);
}

void MetricsRegistry::set_engine_gauges(const EngineGauges& gauges) {
  const std::lock_guard lock(mutex_);
  gauges_ = gauges;
}

void MetricsRegistry::set_traffic(const TrafficTotals& totals) {
  const std::lock_guard lock(mutex_);
  traffic_ = totals;
}

void MetricsRegistry::record_pairs(std::span<const int64_t> counts) {
  const std::lock_guard lock(mutex_);
  pairs_.resize(counts.size());
  std::transform(pairs_.begin(), pairs_.end(), counts.begin(), pairs_.begin(), std::plus<>());
}

void MetricsRegistry::set_loads(LoadGauges loads) {
  const std::lock_guard lock(mutex_);
  loads_ = std::move(loads);
}

void MetricsRegistry::set_skip_switches(std::span<const SkipSwitchGauge> switches, int64_t num_changes) {
  const std::lock_guard lock(mutex_);
  skip_switches_.assign(switches.begin(), switches.end());
  num_skip_switches_ = num_changes;
}

void MetricsRegistry::set_guard(const GuardGauges& gauges) {
  const std::lock_guard lock(mutex_);
  guard_ = gauges;
}

void MetricsRegistry::set_policy(const PolicyGauges& gauges) {
  const std::lock_guard lock(mutex_);
  policy_ = gauges;
}

void MetricsRegistry::set_disks(std::span<const DiskTotals> of_ranks) {
  const std::lock_guard lock(mutex_);
  disks_.assign(of_ranks.begin(), of_ranks.end());
}

void MetricsRegistry::record_prompt(int64_t num_tokens) {
  const std::lock_guard lock(mutex_);
  prompt_tokens_ += num_tokens;
}

void MetricsRegistry::record_first_token(double seconds_since_arrival) {
  const std::lock_guard lock(mutex_);
  first_token_seconds_.observe(seconds_since_arrival);
}

void MetricsRegistry::record_token_interval(double seconds) {
  const std::lock_guard lock(mutex_);
  token_interval_seconds_.observe(seconds);
}

void MetricsRegistry::record_generated_tokens(int64_t num_tokens) {
  const std::lock_guard lock(mutex_);
  generation_tokens_ += num_tokens;
}

void MetricsRegistry::record_finished_request(std::string_view finished_reason, double seconds_since_arrival) {
  const std::lock_guard lock(mutex_);
  ++finished_requests_[std::string(finished_reason)];
  request_seconds_.observe(seconds_since_arrival);
}

void MetricsRegistry::record_http_request(std::string_view path, int status) {
  const std::lock_guard lock(mutex_);
  ++http_requests_[{std::string(path), status}];
}

std::string MetricsRegistry::text() const {
  std::vector<MetricFamily> families;
  {
    const std::lock_guard lock(mutex_);
    families = MetricsExposition(*this).families();
  }
  return prometheus::TextSerializer().prometheus::Serializer::Serialize(families);
}

}  // namespace skipper
