#include "launcher/commands/serve_command.h"

#include <glog/logging.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <iostream>
#include <optional>
#include <thread>

#include "base/error.h"
#include "comm/mpi_runtime.h"
#include "frontend/endpoints.h"
#include "frontend/http_server.h"
#include "launcher/admin_server.h"
#include "launcher/command_options.h"
#include "launcher/error_line.h"
#include "launcher/generation_defaults.h"
#include "launcher/load_watch.h"
#include "launcher/rank_process.h"
#include "launcher/signal_watcher.h"
#include "launcher/startup_agreement.h"
#include "launcher/tenant_watch.h"
#include "metrics/metrics_registry.h"
#include "processor/incremental_detokenizer.h"

namespace skipper {
namespace {

// mpirun kills its ranks one second after it has passed SIGTERM on; what is running by then is lost.
constexpr std::chrono::milliseconds kGraceUnderMpirun{400};
// From the engine's last event to its writing.
constexpr std::chrono::milliseconds kLastEvents{100};

std::string served_name(const CommandLine& line) {
  if (!line.served_model_name.empty()) return line.served_model_name;
  // "models/demo/" has no file name; its parent path "models/demo" does.
  const std::filesystem::path path = std::filesystem::path(line.model).lexically_normal();
  return (path.has_filename() ? path : path.parent_path()).filename().string();
}

ServedModel served_model(const CommandLine& line, const RankProcess& process) {
  const GenerationDefaults defaults = read_generation_defaults(line.model);
  ServedModel model;
  model.name = served_name(line);
  model.max_model_len = process.config().engine.max_model_len;
  model.vocab_size = process.model_config().vocab_size;
  model.created = std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
  model.temperature = defaults.temperature;
  model.top_p = defaults.top_p;
  model.top_k = defaults.top_k;
  model.end_token_ids = process.model_config().eos_token_ids;
  model.service_tiers = process.config().service_tiers;
  model.tier_policies = process.tier_policies();
  return model;
}

TrafficTotals totals_of(const TrafficCounters& traffic) {
  TrafficTotals totals;
  totals.payload_bytes = traffic.payload_bytes;
  totals.saved_bytes = traffic.saved_bytes;
  totals.wire_bytes = traffic.wire_bytes;
  totals.pairs_on_shadows = traffic.pairs_on_shadows;
  return totals;
}

DiskTotals totals_of(const DiskReading& reading) {
  const CacheCounters& cache = reading.cache;
  return {.num_in_memory = reading.num_in_memory,
          .num_hits = cache.num_hits,
          .num_late = cache.num_late,
          .num_misses = cache.num_misses,
          .num_foreseen = cache.num_foreseen,
          .num_used = cache.num_used,
          .num_wasted = cache.num_wasted,
          .num_bytes = cache.num_bytes,
          .busy_seconds = cache.busy_seconds,
          .exposed_seconds = cache.exposed_seconds,
          .num_cached = reading.num_frames,
          .foresees = reading.foresight.is_on,
          .num_times_off = reading.foresight.num_times_off};
}

EngineStatus::Phase phase_of(EngineState state) {
  switch (state) {
    case EngineState::kLoading:
      return EngineStatus::Phase::kLoading;
    case EngineState::kIdle:
      return EngineStatus::Phase::kIdle;
    case EngineState::kStepping:
    case EngineState::kStalled:
      return EngineStatus::Phase::kStepping;
  }
  return EngineStatus::Phase::kFailed;
}

TokenTextDecoder make_decoder(const BpeTokenizer& tokenizer) {
  auto detokenizer = std::make_shared<IncrementalDetokenizer>(tokenizer, SpecialTokenText::kSkip);
  return {.push = [detokenizer](int32_t id) { return detokenizer->push(id); },
          .flush = [detokenizer] { return detokenizer->flush(); }};
}

// Rank 0's half of a server: HTTP on a thread of its own, from before the weights are loaded until the engine has ended.
class Frontend {
 public:
  Frontend(const CommandLine& line, RankProcess& process)
      : process_(process),
        metrics_(served_name(line), process.world_size()),
        imbalance_alarm_(line.imbalance_alarm),
        server_(process.config().frontend, make_endpoints(serving_context(line)), metrics_) {
    if (line.admin_port >= 0) admin_.emplace(line, process, metrics_);
    thread_ = std::thread([this] { server_.run(); });
  }

  ~Frontend() {
    server_.stop();
    thread_.join();
  }

  // After the model is loaded.
  StepObserver observer() {
    loads_.emplace(process_.model().placement(), imbalance_alarm_, metrics_);
    return [this](const StepReport& report) { observe(report); };
  }

  // From here on requests are taken, by an engine whose model is loaded.
  void set_engine(Engine& engine) {
    expert_bits_per_weight_ = process_.model().expert_bits_per_weight();
    engine_ = &engine;
    if (admin_) admin_->set_engine(engine);
  }

  void announce() const {
    // In one piece: another rank's log must not come between.
    if (admin_) std::cerr << "skipper: admin on http://127.0.0.1:" + std::to_string(admin_->port()) + "\n" << std::flush;
    std::cout << "skipper: listening on http://" << process_.config().frontend.host << ":" << server_.port() << std::endl;
  }

  // The engine has ended with an error: /health says so until the process is gone.
  void mark_failed() { failed_ = true; }

  // No new work from here on; what runs may end.
  void drain(std::chrono::milliseconds grace) {
    draining_ = true;
    server_.stop(grace);
    if (admin_) admin_->stop(grace);
  }

 private:
  std::shared_ptr<const ServingContext> serving_context(const CommandLine& line) {
    const EngineConfig limits = process_.config().engine;
    const ChatProcessor processor{
        .process = [this](const std::vector<ChatMessage>& messages) { return process_.processor().process(messages); },
        .make_decoder = [this] { return make_decoder(process_.processor().tokenizer()); }};
    const EngineHooks hooks{.submit =
                                [this, limits](Submission submission) {
                                  validate_request(submission.request, limits);
                                  require_policy(submission.floor);
                                  return process_.queue().push(std::move(submission));
                                },
                            .status = [this] { return status(); },
                            .policy_of = process_.has_policies() ? policy_of() : nullptr};
    return std::make_shared<ServingContext>(
        ServingContext{process_.config().frontend, served_model(line, process_), processor, hooks, metrics_});
  }

  void require_policy(const PolicyFloor& floor) const {
    const std::string refusal = engine_.load()->expert_switch().refusal(floor);
    if (!refusal.empty()) throw Cancelled(refusal);
  }

  // No request runs before there is an engine.
  std::function<PolicyTraits(uint32_t)> policy_of() const {
    return [this](uint32_t version) { return engine_.load()->expert_switch().policy_of(version); };
  }

  EngineStatus status() const {
    const HealthReport report = process_.health().report();
    const Engine* engine = engine_;
    return {.phase = failed_ ? EngineStatus::Phase::kFailed : phase_of(report.state),
            .age = report.since_last_beat,
            .draining = draining_.load(),
            .queue_full = process_.queue().full(),
            .highest_level = engine == nullptr ? 0 : engine->operating_levels().num_levels() - 1,
            .level_places = engine == nullptr ? std::vector<uint16_t>() : engine->operating_levels().places(),
            .expert_bits_per_weight = engine == nullptr ? 0.0 : expert_bits_per_weight_};
  }

  void observe(const StepReport& report) {
    traffic_ += report.traffic;
    if (report.num_tokens > 0) metrics_.record_step(report.step_seconds);
    metrics_.set_engine_gauges({report.num_running, report.num_waiting, report.kv_used_fraction, report.level,
                                report.num_level_changes, report.num_dispatch_reruns});
    metrics_.set_traffic(totals_of(traffic_));
    loads_->observe(report);
    metrics_.record_pairs(report.pairs->counts());
    show_switches(report);
    show_guard();
    show_policy();
    show_disks(report);
  }

  void show_policy() {
    const Engine* engine = engine_;
    if (engine == nullptr || !engine->expert_switch().has_policies()) return;
    const SwitchState state = engine->expert_switch().state();
    metrics_.set_policy({.policy = state.policy,
                         .version = state.version,
                         .num_switches = state.num_switches,
                         .num_failures = state.num_failures,
                         .moved_bytes = state.moved_bytes,
                         .staging_seconds = state.staging_seconds});
  }

  void show_disks(const StepReport& report) {
    disks_.clear();
    for (const DiskReading& reading : report.disks) disks_.push_back(totals_of(reading));
    metrics_.set_disks(disks_);
  }

  void show_guard() {
    const Engine* engine = engine_;
    if (engine == nullptr || !engine->guard().is_on()) return;
    const GuardState state = engine->guard().state();
    metrics_.set_guard({.is_on = true,
                        .serves_reference = state.serving == ExpertSet::kReference,
                        .relative_error = state.relative_error,
                        .worst_over_allowed = state.worst.excess(),
                        .mean_kl = state.mean_kl,
                        .num_rows = state.num_rows,
                        .num_scored_tokens = state.num_scored_tokens,
                        .num_rollbacks = state.num_rollbacks});
  }

  void show_switches(const StepReport& report) {
    switches_.clear();
    for (const SkipSwitch& one : report.skip_switches) switches_.push_back({one.is_off, one.cost, one.saving});
    metrics_.set_skip_switches(switches_, report.num_skip_switches);
  }

  RankProcess& process_;
  MetricsRegistry metrics_;
  const double imbalance_alarm_;
  TrafficCounters traffic_;  // engine thread
  std::vector<SkipSwitchGauge> switches_;  // engine thread
  std::vector<DiskTotals> disks_;          // engine thread
  std::optional<LoadWatch> loads_;
  std::atomic<bool> draining_{false};
  std::atomic<bool> failed_{false};
  std::atomic<const Engine*> engine_{nullptr};
  double expert_bits_per_weight_ = 0.0;  // written before engine_
  HttpServer server_;
  std::thread thread_;
  std::optional<AdminServer> admin_;
};

// The signals of rank 0. Until there is an engine to stop, a signal ends the process, and with it the group.
class StopOnSignal {
 public:
  StopOnSignal(const FrontendConfig& config, Frontend& frontend)
      : drain_timeout_(config.drain_timeout),
        frontend_(frontend),
        watcher_([this](StopSignal signal) { on_signal(signal); }) {}

  void set_engine(Engine& engine) { engine_ = &engine; }

 private:
  void on_signal(StopSignal signal) {
    Engine* engine = engine_;
    if (engine == nullptr) {
      print_error("stopped by a signal while starting");
      std::_Exit(EXIT_FAILURE);
    }
    const bool hurried = signal == StopSignal::kTerminate && MpiRuntime::launched();
    auto grace = hurried ? std::min(drain_timeout_, kGraceUnderMpirun) : drain_timeout_;
    if (asked_before_) grace = std::chrono::milliseconds(0);
    asked_before_ = true;
    LOG(INFO) << "stopping grace_ms=" << grace.count();
    // Answers that the engine cannot end in time, because a rank is gone, end with an error of the server's.
    frontend_.drain(grace + kLastEvents);
    engine->stop(grace);
  }

  const std::chrono::milliseconds drain_timeout_;
  Frontend& frontend_;
  std::atomic<Engine*> engine_{nullptr};
  bool asked_before_ = false;  // watcher's thread
  SignalWatcher watcher_;      // last: its thread uses the members above
};

void lead(RankProcess& process, Frontend& frontend) {
  StopOnSignal stop_on_signal(process.config().frontend, frontend);
  LOG(INFO) << "settings " << describe(process.config());
  process.load();
  Engine& engine = process.start_engine(frontend.observer());
  frontend.set_engine(engine);
  stop_on_signal.set_engine(engine);
  process.health().idle();  // or who reads the next line at once may be told that the model is loading
  frontend.announce();
  std::optional<TenantWatch> watch;
  if (process.tenant() != nullptr && process.tenant()->follower() != nullptr) watch.emplace(process, engine);
  try {
    engine.run();
  } catch (...) {
    frontend.mark_failed();
    throw;
  }
}

}  // namespace

int run_serve(const CommandLine& line) {
  block_stop_signals();
  RankProcess process([&] { return server_config_from(line); }, rank_options_from(line));
  std::optional<Frontend> frontend;
  run_together(process.startup(), [&] {
    if (process.is_leader()) frontend.emplace(line, process);
  });
  if (frontend) {
    lead(process, *frontend);
  } else {
    process.load();
    process.start_engine(nullptr).run();
  }
  return 0;
}

}  // namespace skipper
