// The loop of every rank: plan → run → deliver.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "cluster/control_channel.h"
#include "cluster/health_monitor.h"
#include "cluster/operating_point.h"
#include "comm/communicator.h"
#include "engine/dispatch_room.h"
#include "engine/engine_guard.h"
#include "engine/expert_stager.h"
#include "engine/expert_switch.h"
#include "engine/level_slots.h"
#include "engine/model_runner.h"
#include "engine/operating_levels.h"
#include "engine/request_queue.h"
#include "engine/scheduler.h"
#include "engine/skip_gate.h"
#include "expert_parallel/traffic_counters.h"
#include "guard/reference_experts.h"
#include "residency/disk_reading.h"

namespace skipper {

// What one step did, for metrics; sums over ranks. A heartbeat has no tokens. Rank 0 only.
struct StepReport {
  int64_t step = 0;
  int64_t num_running = 0;
  int64_t num_waiting = 0;
  double kv_used_fraction = 0.0;
  int64_t num_tokens = 0;         // processed in this step
  double step_seconds = 0.0;
  TrafficCounters traffic;        // of this step
  const PairCounters* pairs = nullptr;  // of this step; valid during the call
  std::span<const int64_t> expert_loads;  // ExpertLoads over all ranks, since start; empty in most steps; valid during the call
  uint8_t level = 0;              // the global one
  int64_t num_level_changes = 0;  // since start
  std::span<const SkipSwitch> skip_switches = {};  // [MoE layer][phase]; valid during the call
  int64_t num_skip_switches = 0;  // since start
  int64_t num_dispatch_reruns = 0;  // since start: DispatchDemand
  std::span<const DiskReading> disks = {};  // of each rank; empty where no rank reads experts from disk; valid during the call
};
using StepObserver = std::function<void(const StepReport&)>;

// The pairs that a rank's own tokens ran on each expert, summed since its start: as many numbers on every rank. They come with
// every `steps_apart`-th answer only, as they are more than the rest of it.
struct ExpertLoads {
  std::span<const int64_t> counts = {};
  int64_t steps_apart = 16;
  std::function<void()> bring_up_to_date = nullptr;  // before they are read; null: they always are

  bool come_with(const StepPlan& plan) const { return !counts.empty() && plan.step % steps_apart == 0; }
};

// How an engine watches its experts.
struct GuardParts {
  GuardConfig config = {};
  ReferenceExperts* reference = nullptr;  // of this rank; null: no guard, on every rank
  std::string served = {};                // name of the plan that the served experts follow
};

// What an engine can switch its experts to.
struct PolicyParts {
  ExpertStager* stager = nullptr;         // of this rank; null: nothing is switched, on every rank
  std::vector<PolicyTraits> policies = {};
  uint16_t first = 0;                     // that serves from start
};

// Whether some rank reads experts from disk: what all ranks then tell with every step. The same on every rank.
enum class DiskReports : uint8_t { kNone, kEveryStep };

// What an engine works with; all of it outlives the engine.
struct EngineParts {
  Communicator& control;
  Communicator& data;
  ModelRunner& runner;
  MultimodalModel& model;
  RequestQueue& queue;    // used at rank 0
  HealthMonitor& health;
  LevelTable& levels;     // the one that the model reads; replaced between steps
  ThreadPool& workers = ThreadPool::caller_only();  // of the kernels
  ExpertLoads loads = {};
  uint8_t level = 0;      // the global one at start; used at rank 0
  SkipGateConfig gate = {.switch_off = false};  // used at rank 0
  GuardParts guard = {};
  PolicyParts policies = {};
  DiskReports disks = DiskReports::kNone;
};

// Rank 0 plans each step and all ranks step alike; ranks without tokens take part with zero. Engine thread only, except
// stop() and what concerns levels.
class Engine {
 public:
  Engine(const EngineConfig& config, const ClusterConfig& cluster, const EngineParts& parts, StepObserver observer);

  // Steps until stop() at rank 0, until rank 0 says stop elsewhere. An error ends every request with kError, aborts the group
  // and is thrown on. The other ranks can call it again after it returned: each call follows rank 0, which drives the steps
  // itself, from one finish() to the next.
  void run();
  // Levels that the model's device cannot run are refused by InvalidRequest.
  // Rank 0, thread-safe: `levels` applies on all ranks from the next step on. Tokens under way keep the number of their level, so
  // a table that comes while requests run must begin with the levels that they use.
  void set_levels(LevelTable levels);
  // Rank 0, thread-safe: the global level, which requests with LevelChoice::kGlobal follow from the next step on.
  uint64_t set_level(int64_t level);
  // Rank 0, thread-safe: a level more, or the one with these numbers, becomes the global one.
  uint64_t append_level(OperatingPoint point);
  // Rank 0, thread-safe: what is in force, and the wait for a change.
  const OperatingLevels& operating_levels() const { return levels_; }
  // Rank 0: one step, or a heartbeat when there is nothing to do; for callers that drive the loop themselves.
  void step();
  // Rank 0: tells the other ranks to leave run(). Requests still there end with kCancelled. More steps may follow, once the
  // others are in run() again; levels can no longer be waited for.
  void finish();

  // Thread-safe; also usable in a signal handler's thread. `grace` is the time running requests get to end by themselves.
  void stop(std::chrono::milliseconds grace);

  // Rank 0.
  EngineGuard& guard() { return guard_; }
  ExpertSwitch& expert_switch() { return expert_switch_; }
  const ExpertSwitch& expert_switch() const { return expert_switch_; }
  // Thread-safe: the number of a request for expert_switch() to wait for.
  uint64_t switch_experts(SwitchRequest wish);
  const EngineGuard& guard() const { return guard_; }
  const EngineConfig& config() const { return config_; }
  const TrafficCounters& total_traffic() const { return total_traffic_; }

 private:
  void lead();
  void follow();
  bool should_stop() const;
  void execute(const StepPlan& plan, std::span<const std::byte> admissions);
  void take_submissions();
  void scatter_admissions(const StepPlan& plan);
  StepPlan plan_step(const OperatingLevels::Change& levels);
  void take_levels(const OperatingLevels::Change& levels);
  LevelSet levels_of(const StepPlan& plan) const;  // but for level 0
  void switch_layers();
  void give_up_switching();
  std::vector<SwitchedOffLayer> switched_off_layers() const;
  void apply_levels(const StepPlan& plan);
  void use_experts(const StepPlan& plan);
  void watch_experts();
  void exchange_with_reference(ExpertSet wanted);
  void end_expert_step(const StepPlan& plan);
  void return_to_good_plan();
  void gather_results(const StepPlan& plan);
  void read_records(const StepPlan& plan);
  DiskReading disk_reading() const;
  size_t record_bytes(const StepPlan& plan, size_t rank) const;
  void report(const StepPlan& plan, double step_seconds);

  EngineConfig config_;
  EngineParts parts_;
  StepObserver observer_;
  ControlChannel channel_;
  Stream stream_;
  Scheduler scheduler_;
  TrafficCounters total_traffic_;
  TrafficCounters step_traffic_;
  TrafficCounters sent_traffic_;  // what this rank has told rank 0 so far
  PairCounters step_pairs_;
  PairCounters sent_pairs_;
  std::vector<int64_t> sum_of_loads_;
  OperatingLevels levels_;
  // Rank 0: the levels in the forms that the ranks have, and which layers are without skipping.
  LevelSlots slots_;
  SkipGate gate_;
  DispatchRoom dispatch_room_;
  EngineGuard guard_;  // used at rank 0
  ExpertSwitch expert_switch_;  // used at rank 0
  ExpertSet experts_in_use_ = ExpertSet::kServed;
  uint32_t guard_term_ = 0;

  std::atomic<bool> stopping_{false};
  std::atomic<int64_t> stop_deadline_ms_{0};

  // Reused from step to step.
  std::vector<std::byte> plan_bytes_;
  std::vector<std::vector<std::byte>> admissions_;
  std::vector<SequenceResult> local_results_;
  std::vector<std::byte> record_;   // this rank's answer
  std::vector<std::byte> records_;  // rank 0: all answers
  std::vector<std::vector<SequenceResult>> results_;
  std::vector<StagingReport> staging_;    // rank 0: of each rank; empty while nothing is staged
  std::vector<GuardReading> readings_;  // rank 0: of each rank; empty without a guard
  std::vector<DiskReading> disks_;      // rank 0: of each rank; empty where no rank reads experts from disk
};

}  // namespace skipper
