#include "engine/engine.h"

#include <glog/logging.h>

#include <algorithm>
#include <numeric>

#include "base/byte_codec.h"
#include "base/error.h"
#include "residency/disk_residence.h"

namespace skipper {
namespace {

using Clock = std::chrono::steady_clock;

// How often an idle group asks whether the experts of a switch are ready.
constexpr std::chrono::milliseconds kSwitchPoll{20};
// How long the reference may serve before the plan that it waits for is given up.
constexpr std::chrono::milliseconds kReturnPatience{600'000};

int64_t admission_bytes(const RankPlan& plan) {
  return static_cast<int64_t>(std::accumulate(plan.admission_bytes.begin(), plan.admission_bytes.end(), uint64_t{0}));
}

bool has_admissions(const StepPlan& plan) {
  for (const RankPlan& rank : plan.ranks) {
    if (!rank.admission_bytes.empty()) return true;
  }
  return false;
}

int64_t now_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now().time_since_epoch()).count();
}

Stream stream_of(const EngineParts& parts) {
  if (parts.model.device() == Device::host()) return Stream(parts.workers);
  return Stream(parts.model.device());
}

}  // namespace

Engine::Engine(const EngineConfig& config, const ClusterConfig& cluster, const EngineParts& parts, StepObserver observer)
    : config_(config),
      parts_(parts),
      observer_(std::move(observer)),
      channel_(parts.control, cluster),
      stream_(stream_of(parts)),
      scheduler_(config, parts.control.size()),
      step_pairs_(parts.model.pairs()),
      sent_pairs_(parts.model.pairs()),
      levels_(parts.levels, parts.level),
      slots_(parts.levels),
      gate_(parts.gate, parts.model.config().num_moe_layers()),
      guard_(parts.guard.config, parts.guard.served, parts.queue),
      expert_switch_(parts.policies.policies, parts.policies.first) {
  if (parts_.guard.reference != nullptr) watch_experts();
  if (expert_switch_.has_policies()) scheduler_.count_versions();
}

void Engine::run() {
  try {
    if (parts_.control.rank() == 0) {
      lead();
    } else {
      follow();
    }
  } catch (const std::exception& e) {
    // Whoever is inside a step must not leave the others waiting in a collective, nor a client without an answer.
    parts_.queue.close();
    levels_.close();
    expert_switch_.close();
    take_submissions();
    scheduler_.end_all("the server failed while it worked on this request; retry later");
    parts_.control.abort(e.what());
    parts_.data.abort(e.what());
    throw;
  }
}

void Engine::stop(std::chrono::milliseconds grace) {
  // Closed first: a request that still gets in is then seen by the engine's last look at the queue.
  parts_.queue.close();
  stop_deadline_ms_ = now_ms() + grace.count();
  stopping_ = true;
  parts_.queue.wake();
}

bool Engine::should_stop() const {
  return stopping_ && (!scheduler_.has_work() || now_ms() >= stop_deadline_ms_);
}

void Engine::lead() {
  parts_.health.idle();
  while (true) {
    take_submissions();
    if (should_stop()) break;
    if (!scheduler_.has_work() && !stopping_) {
      parts_.queue.wait(expert_switch_.is_under_way() ? std::min(kSwitchPoll, config_.idle_heartbeat) : config_.idle_heartbeat);
      take_submissions();
    }
    step();
  }
  finish();
}

void Engine::step() {
  take_submissions();
  const auto start = Clock::now();
  const OperatingLevels::Change levels = levels_.take();
  const StepPlan plan = plan_step(levels);
  parts_.queue.set_num_waiting(scheduler_.num_waiting());
  parts_.health.step_started(plan.step);
  parts_.control.set_context({.step = plan.step, .layer = -1, .phase = "plan"});
  plan_bytes_.clear();
  encode(plan, plan_bytes_);
  channel_.broadcast_plan(plan_bytes_);
  apply_levels(plan);
  if (has_admissions(plan)) scatter_admissions(plan);
  execute(plan, admissions_[0]);
  gather_results(plan);
  scheduler_.apply(plan, results_);
  guard_.end_step(plan.step, readings_);
  end_expert_step(plan);
  if (guard_.wants_good_plan() && !expert_switch_.is_under_way()) return_to_good_plan();
  dispatch_room_.observe(plan.shape, parts_.model.dispatch_demand().most_rows);
  levels_.confirm(levels);
  if (plan.kind == StepKind::kRun && gate_.observe(parts_.model.skip_costs(), levels_of(plan))) switch_layers();
  parts_.health.step_finished();
  report(plan, std::chrono::duration<double>(Clock::now() - start).count());
}

StepPlan Engine::plan_step(const OperatingLevels::Change& levels) {
  take_levels(levels);
  guard_.begin_step();
  const ExpertOrder order = expert_switch_.order();
  if (guard_.is_on() && order.version != guard_.version()) {
    guard_.serve(order.version, expert_switch_.policy_of(order.version).name);
  }
  scheduler_.set_experts(guard_.serving());
  StepPlan plan = scheduler_.next_plan(admissions_);
  plan.guard_term = guard_.term();
  plan.expert_order = order;
  plan.posted_plan = expert_switch_.take_posted_plan(plan.expert_order);
  plan.shape.slot_rows = dispatch_room_.rows_for(plan.shape);
  plan.level_table_version = slots_.table().version;
  if (plan.level_table_version != parts_.levels.version) encode(slots_.table(), plan.level_table);
  return plan;
}

// What other levels save is another question: their layers all skip at first.
void Engine::take_levels(const OperatingLevels::Change& levels) {
  if (levels.table) slots_.set_levels(*levels.table, levels.places);
  if (levels.table || levels.level != levels_.level()) {
    gate_.reset(parts_.model.skip_costs());
    dispatch_room_.forget();
    switch_layers();
  }
  scheduler_.set_global_level(levels.level);
}

LevelSet Engine::levels_of(const StepPlan& plan) const {
  LevelSet levels;
  for (const RankPlan& rank : plan.ranks) {
    for (const SequenceStep& step : rank.sequences) levels.set(slots_.map().level_of_slot[step.level]);
  }
  return levels.reset(0);
}

// The next plan carries the levels without the layers whose skipping is switched off.
void Engine::switch_layers() {
  const ExemptLayers exempt = gate_.exempt_layers();
  if (exempt != slots_.exempt()) {
    if (!levels_.claim_slots(slots_.slots_missing(exempt))) return give_up_switching();
    slots_.set_exempt(exempt);
  }
  scheduler_.set_levels(slots_.map());
  levels_.set_switched_off(switched_off_layers());
}

// Every level has a slot in which all its layers skip.
void Engine::give_up_switching() {
  LOG(WARNING) << "no room for more forms of the levels: all layers skip again; restart the server with fewer levels";
  gate_.stop();
  slots_.set_exempt({});
  scheduler_.set_levels(slots_.map());
  levels_.set_switched_off({});
}

std::vector<SwitchedOffLayer> Engine::switched_off_layers() const {
  std::vector<SwitchedOffLayer> layers;
  for (size_t i = 0; i < gate_.switches().size(); ++i) {
    const SkipSwitch& one = gate_.switches()[i];
    if (!one.is_off) continue;
    layers.push_back({.moe_layer = static_cast<int>(i / kNumTokenPhases),
                      .phase = static_cast<TokenPhase>(i % kNumTokenPhases),
                      .cost_seconds = one.cost,
                      .saving_seconds = one.saving});
  }
  return layers;
}

void Engine::set_levels(LevelTable levels) {
  parts_.model.check_levels(levels);
  levels_.set_table(std::move(levels));
  parts_.queue.wake();
}

uint64_t Engine::set_level(int64_t level) {
  const uint64_t change = levels_.set_level(level);
  parts_.queue.wake();
  return change;
}

uint64_t Engine::append_level(OperatingPoint point) {
  LevelTable longer = levels_.in_force().table;
  longer.levels.push_back(point);
  parts_.model.check_levels(longer);
  const uint64_t change = levels_.append(std::move(point));
  parts_.queue.wake();
  return change;
}

uint64_t Engine::switch_experts(SwitchRequest wish) {
  wish.mends = guard_.serving() == ExpertSet::kReference;
  const uint64_t request = expert_switch_.request(std::move(wish));
  parts_.queue.wake();
  return request;
}

void Engine::end_expert_step(const StepPlan& plan) {
  const PolicyFloor strictest = plan.expert_order.is_staging() ? scheduler_.strictest_floor() : PolicyFloor();
  expert_switch_.end_step(plan.step, plan.expert_order, staging_, strictest);
}

void Engine::apply_levels(const StepPlan& plan) {
  if (!plan.level_table.empty()) parts_.levels = decode_level_table(plan.level_table);
  CHECK_EQ(plan.level_table_version, parts_.levels.version);
}

void Engine::watch_experts() {
  parts_.model.set_expert_output_observer([this](int moe_layer, const ExpertBatch& batch, const Tensor& out, Stream& stream) {
    if (experts_in_use_ == ExpertSet::kServed) parts_.guard.reference->observe(moe_layer, batch, out, stream);
  });
  if (parts_.control.rank() != 0) return;
  scheduler_.set_answer_observer([this](const Sequence& answered, uint8_t level) { guard_.offer(answered, level); });
}

// The reference serves until the last good plan's experts are ready; the switch is tried for one plan after the other.
void Engine::return_to_good_plan() {
  const std::string policy = expert_switch_.has_policies() ? expert_switch_.return_to_last_good(kReturnPatience) : std::string();
  if (!policy.empty()) return guard_.return_to(policy);
  const std::string failure = expert_switch_.state().last.failure;
  guard_.stay(failure.empty() ? "no other plan has served before" : "no other plan is left; the last switch failed: " + failure);
}

void Engine::use_experts(const StepPlan& plan) {
  ExpertStager* stager = parts_.policies.stager;
  ReferenceExperts* reference = parts_.guard.reference;
  const bool brings_others = stager != nullptr && plan.expert_order.version != stager->version();
  if (brings_others) exchange_with_reference(ExpertSet::kServed);
  if (stager != nullptr) {
    const bool is_exchanged = experts_in_use_ == ExpertSet::kReference;
    stager->follow(plan.expert_order, plan.posted_plan, is_exchanged ? reference->store() : parts_.model.expert_store());
  }
  if (brings_others && reference != nullptr) reference->serve(parts_.model.expert_store());
  exchange_with_reference(plan.experts);
  if (plan.guard_term != guard_term_) reference->forget();
  guard_term_ = plan.guard_term;
}

void Engine::exchange_with_reference(ExpertSet wanted) {
  if (wanted == experts_in_use_) return;
  CHECK(parts_.guard.reference != nullptr) << "the plan asks for reference experts, which this rank does not have";
  parts_.model.exchange_experts(parts_.guard.reference->store());
  experts_in_use_ = wanted;
}

void Engine::finish() {
  levels_.close();
  expert_switch_.close();
  take_submissions();
  scheduler_.end_all("");
  parts_.queue.set_num_waiting(0);
  StepPlan plan;
  plan.kind = StepKind::kStop;
  plan_bytes_.clear();
  encode(plan, plan_bytes_);
  channel_.broadcast_plan(plan_bytes_);
  parts_.health.idle();
}

// The frontend has asked the switch before, but it may have begun since.
void Engine::take_submissions() {
  for (Submission& submission : parts_.queue.take_all()) {
    const std::string refusal = expert_switch_.refusal(submission.floor);
    if (refusal.empty()) {
      scheduler_.submit(std::move(submission));
    } else {
      submission.sink({.request_id = submission.request.id, .finish_reason = FinishReason::kError, .error = refusal});
    }
  }
}

void Engine::scatter_admissions(const StepPlan& plan) {
  std::vector<std::byte> parts;
  std::vector<int64_t> counts;
  for (size_t r = 0; r < plan.ranks.size(); ++r) {
    counts.push_back(admission_bytes(plan.ranks[r]));
    parts.insert(parts.end(), admissions_[r].begin(), admissions_[r].end());
  }
  channel_.scatter({parts.data(), parts.size()}, counts, {admissions_[0].data(), admissions_[0].size()});
}

void Engine::execute(const StepPlan& plan, std::span<const std::byte> admissions) {
  local_results_.clear();
  use_experts(plan);
  if (plan.kind != StepKind::kRun) {
    // Releases without a forward pass: nothing to compute, and so no collective of the data communicator.
    parts_.runner.release(plan.ranks[static_cast<size_t>(parts_.control.rank())].released);
    return;
  }
  parts_.model.set_step(plan.step);
  parts_.runner.run(plan.ranks[static_cast<size_t>(parts_.control.rank())], plan.shape, admissions, stream_, local_results_);
}

// What a rank answers to a step: traffic and pairs since its last answer, now and then its expert loads, what its guard found,
// how far the experts of a switch are, what reading experts has cost, then one result per sequence of its plan.
size_t Engine::record_bytes(const StepPlan& plan, size_t rank) const {
  const size_t load_bytes = parts_.loads.come_with(plan) ? parts_.loads.counts.size_bytes() : 0;
  const size_t result_bytes = plan.ranks[rank].sequences.size() * sizeof(SequenceResult);
  const size_t guard_bytes = parts_.guard.reference == nullptr ? 0 : sizeof(GuardReading);
  const size_t staging_bytes = plan.expert_order.wants_reports() ? sizeof(StagingReport) : 0;
  const size_t disk_bytes = parts_.disks == DiskReports::kNone ? 0 : sizeof(DiskReading);
  return sizeof(TrafficCounters) + step_pairs_.counts().size_bytes() + load_bytes + guard_bytes + staging_bytes + disk_bytes +
         result_bytes;
}

DiskReading Engine::disk_reading() const {
  const DiskResidence* residence = parts_.model.disk_residence();
  return residence == nullptr ? DiskReading() : residence->reading();
}

void Engine::gather_results(const StepPlan& plan) {
  parts_.control.set_context({.step = plan.step, .layer = -1, .phase = "result"});
  const TrafficCounters traffic = parts_.model.traffic() - sent_traffic_;
  sent_traffic_ = parts_.model.traffic();
  step_pairs_ = parts_.model.pairs();
  step_pairs_ -= sent_pairs_;
  sent_pairs_ += step_pairs_;
  record_.clear();
  ByteWriter writer(record_);
  writer.value(traffic);
  for (const int64_t count : step_pairs_.counts()) writer.value(count);
  if (parts_.loads.come_with(plan)) {
    if (parts_.loads.bring_up_to_date) parts_.loads.bring_up_to_date();
    for (const int64_t count : parts_.loads.counts) writer.value(count);
  }
  if (parts_.guard.reference != nullptr) writer.value(parts_.guard.reference->reading());
  if (plan.expert_order.wants_reports()) writer.value(parts_.policies.stager->report());
  if (parts_.disks != DiskReports::kNone) writer.value(disk_reading());
  for (const SequenceResult& result : local_results_) writer.value(result);
  if (parts_.control.rank() != 0) return channel_.send_record({record_.data(), record_.size()});

  std::vector<int64_t> counts;
  for (size_t r = 0; r < plan.ranks.size(); ++r) counts.push_back(static_cast<int64_t>(record_bytes(plan, r)));
  records_.resize(static_cast<size_t>(std::accumulate(counts.begin(), counts.end(), int64_t{0})));
  channel_.gather_records({record_.data(), record_.size()}, counts, {records_.data(), records_.size()});
  read_records(plan);
}

void Engine::read_records(const StepPlan& plan) {
  step_traffic_ = {};
  step_pairs_.clear();
  sum_of_loads_.assign(parts_.loads.come_with(plan) ? parts_.loads.counts.size() : 0, 0);
  results_.resize(plan.ranks.size());
  readings_.resize(parts_.guard.reference == nullptr ? 0 : plan.ranks.size());
  staging_.resize(plan.expert_order.wants_reports() ? plan.ranks.size() : 0);
  disks_.resize(parts_.disks == DiskReports::kNone ? 0 : plan.ranks.size());
  ByteReader reader(records_, "step result");
  for (size_t r = 0; r < plan.ranks.size(); ++r) {
    step_traffic_ += reader.value<TrafficCounters>();
    for (int64_t& count : step_pairs_.counts()) count += reader.value<int64_t>();
    for (int64_t& count : sum_of_loads_) count += reader.value<int64_t>();
    if (!readings_.empty()) readings_[r] = reader.value<GuardReading>();
    if (!staging_.empty()) staging_[r] = reader.value<StagingReport>();
    if (!disks_.empty()) disks_[r] = reader.value<DiskReading>();
    results_[r].resize(plan.ranks[r].sequences.size());
    for (SequenceResult& result : results_[r]) result = reader.value<SequenceResult>();
  }
  total_traffic_ += step_traffic_;
}

void Engine::follow() {
  parts_.health.idle();
  std::vector<std::byte> admissions;
  while (true) {
    parts_.control.set_context({.step = -1, .layer = -1, .phase = "plan"});
    const StepPlan plan = decode_step_plan(channel_.receive_plan());
    if (plan.kind == StepKind::kStop) break;
    apply_levels(plan);
    parts_.health.step_started(plan.step);
    admissions.resize(static_cast<size_t>(admission_bytes(plan.ranks[static_cast<size_t>(parts_.control.rank())])));
    if (has_admissions(plan)) channel_.receive_part({admissions.data(), admissions.size()});
    execute(plan, admissions);
    gather_results(plan);
    parts_.health.step_finished();
  }
  parts_.health.idle();
}

void Engine::report(const StepPlan& plan, double step_seconds) {
  parts_.queue.set_num_waiting(scheduler_.num_waiting());
  if (!observer_) return;
  StepReport report;
  report.step = plan.step;
  report.num_running = scheduler_.num_running();
  report.num_waiting = parts_.queue.num_waiting();
  report.kv_used_fraction = scheduler_.kv_used_fraction();
  for (const RankPlan& rank : plan.ranks) report.num_tokens += rank.num_tokens();
  report.step_seconds = step_seconds;
  report.traffic = step_traffic_;
  report.pairs = &step_pairs_;
  report.expert_loads = sum_of_loads_;
  report.level = levels_.level();
  report.num_level_changes = levels_.num_changes();
  report.skip_switches = gate_.switches();
  report.num_skip_switches = gate_.num_changes();
  report.num_dispatch_reruns = parts_.model.dispatch_demand().num_reruns;
  report.disks = disks_;
  observer_(report);
}

}  // namespace skipper
