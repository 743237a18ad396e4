#include "engine/expert_stager.h"

#include <glog/logging.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/error.h"
#include "base/process_memory.h"
#include "model/expert_hash.h"
#include "model/weight_loader.h"
#include "tensor/safetensors.h"

namespace skipper {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kMegabyte = 1'000'000;

// Steps come first; on Linux the calling thread alone gets this priority.
void run_behind_steps() {
  constexpr int kLowPriority = 10;
  (void)setpriority(PRIO_PROCESS, 0, kLowPriority);
}

// As the checkpoint gives it.
bool is_intact(const WeightSource& weights, int layer, const ExpertSlot& slot, const ExpertMatrices& matrices) {
  const ExpertSlot same{.expert = slot.expert, .format = slot.format};
  const ExpertStore fresh = load_expert_layer(weights, layer, {&same, 1}, ThreadPool::caller_only());
  return expert_hash(matrices) == expert_hash({fresh.gate_up(layer)[0], fresh.down(layer)[0]});
}

}  // namespace

ExpertStager::ExpertStager(const StagingSource& source, std::vector<ExpertPolicy> policies, size_t first)
    : source_(source), policies_(std::move(policies)), serving_room_(policies_.at(first).expert_room) {
  if (source.model.device() != Device::host() || source.model.config().quantization) {
    throw InvalidRequest("experts are switched on CPUs alone and with the original checkpoint; use --device cpu, or one --plan",
                         "policies");
  }
  thread_ = std::thread([this] { run(); });
}

ExpertStager::~ExpertStager() {
  {
    const std::lock_guard lock(mutex_);
    is_ending_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

void ExpertStager::follow(const ExpertOrder& order, const std::string& posted_plan, const ExpertStore& served) {
  if (order.version != version_) activate(order.version);
  if (order.staged_version != ordered_version_) order_staging(order, posted_plan, served);
}

void ExpertStager::activate(uint32_t version) {
  {
    const std::lock_guard lock(mutex_);
    CHECK(staged_ != nullptr && report_.version == version) << "the step runs on experts of version " << version
                                                            << ", which this rank has not made ready";
    source_.model.exchange_experts(*staged_);
    retired_ = {.store = std::move(staged_), .successor = version, .since = Clock::now()};
    serving_room_ = staged_room_;
    report_.state = StagingState::kUnderWay;
  }
  version_ = version;
  changed_.notify_one();
}

// A guard may exchange the experts for its reference at any step: what is read of them meanwhile is noted here.
void ExpertStager::order_staging(const ExpertOrder& order, const std::string& posted_plan, const ExpertStore& served) {
  std::optional<Wanted> wanted;
  if (order.is_staging()) wanted = Wanted{order, posted_plan, {}};
  for (int layer = 0; wanted && layer < served.num_layers(); ++layer) {
    std::vector<ServedExpert>& experts = wanted->served.emplace_back();
    for (const ExpertSlot& slot : served.slots(layer)) {
      const size_t place = experts.size();
      experts.push_back({slot, {served.gate_up(layer)[place], served.down(layer)[place]}});
    }
  }
  {
    const std::lock_guard lock(mutex_);
    if (staged_) retired_ = {.store = std::move(staged_), .successor = 0, .since = Clock::now()};
    report_ = {.version = order.is_staging() ? order.staged_version : 0};
    wanted_ = std::move(wanted);
  }
  ordered_version_ = order.staged_version;
  changed_.notify_one();
}

StagingReport ExpertStager::report() const {
  const std::lock_guard lock(mutex_);
  return report_;
}

void ExpertStager::run() {
  run_behind_steps();
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return is_ending_ || wanted_ || retired_.store; });
    if (is_ending_) return;
    Retired retired = std::exchange(retired_, {});
    const std::optional<Wanted> wanted = std::exchange(wanted_, std::nullopt);
    lock.unlock();
    if (retired.store) free(std::move(retired));
    if (wanted) stage(*wanted);
    lock.lock();
  }
}

// Takes its time.
void ExpertStager::free(Retired retired) {
  retired.store.reset();
  return_free_memory();
  const std::lock_guard lock(mutex_);
  if (retired.successor == 0 || report_.version != retired.successor) return;
  report_.state = StagingState::kFreed;
  report_.memory.after = resident_bytes();
  report_.freed_seconds = std::chrono::duration<double>(Clock::now() - retired.since).count();
}

void ExpertStager::stage(const Wanted& wanted) {
  const ExpertOrder& order = wanted.order;
  const auto start = Clock::now();
  StagingReport report{.version = order.staged_version};
  report.memory.before = resident_bytes();
  std::unique_ptr<ExpertStore> store;
  size_t room = 0;
  try {
    const bool is_posted = order.staged_policy == kPostedPolicy;
    const ExpertPolicy policy = is_posted ? source_.read_plan(wanted.posted_plan) : policies_.at(order.staged_policy);
    room = policy.expert_room;
    store = load(policy, wanted, report);
    if (source_.prepare) source_.prepare(policy);
    report.memory.with_both = resident_bytes();
    report.state = StagingState::kReady;
  } catch (const std::exception& error) {
    report.state = StagingState::kFailed;
    report.set_reason(error.what());
  }
  report.seconds = std::chrono::duration<double>(Clock::now() - start).count();
  const std::lock_guard lock(mutex_);
  if (report_.version != order.staged_version) return;  // nobody waits for it any more
  staged_ = std::move(store);
  staged_room_ = room;
  report_ = report;
}

ExpertStager::ChangedExperts ExpertStager::experts_to_make(const ExpertPolicy& policy, const Wanted& wanted,
                                                           const WeightSource& weights) const {
  ChangedExperts changed;
  for (int layer = 0; layer < static_cast<int>(wanted.served.size()); ++layer) {
    std::vector<ExpertSlot>& slots = changed.slots.emplace_back();
    std::vector<AssignedExpert>& assigned = changed.assigned.emplace_back();
    const std::vector<ServedExpert>& now = wanted.served[static_cast<size_t>(layer)];
    for (size_t slot = 0; slot < now.size(); ++slot) {
      const AssignedExpert& next = policy.assignment.at(layer, slot);
      const bool stays = next.format == now[slot].slot.format &&
                         (!wanted.order.mends || is_intact(weights, layer, now[slot].slot, now[slot].matrices));
      if (stays) continue;
      slots.push_back({.expert = now[slot].slot.expert, .format = next.format});
      assigned.push_back(next);
    }
  }
  return changed;
}

size_t ExpertStager::bytes_of(const ExpertSlot& slot) const {
  const ExpertStore& sizes = source_.model.expert_store();
  return stored_expert_bytes(slot.format, sizes.hidden_size(), sizes.intermediate_size());
}

// The checkpoint is opened anew, so that one that has gone since the start is found out.
std::unique_ptr<ExpertStore> ExpertStager::load(const ExpertPolicy& policy, const Wanted& wanted, StagingReport& report) {
  const Checkpoint checkpoint(source_.checkpoint);
  ThreadPool& this_thread = ThreadPool::caller_only();
  const WeightSource weights{checkpoint, source_.model.config(), source_.formats};
  ChangedExperts changed = experts_to_make(policy, wanted, weights);
  size_t new_bytes = 0;
  for (const std::vector<ExpertSlot>& layer : changed.slots) {
    for (const ExpertSlot& slot : layer) new_bytes += bytes_of(slot);
  }
  require_room(policy, wanted, new_bytes);
  auto store = std::make_unique<ExpertStore>(
      load_expert_store(weights, std::move(changed.slots), this_thread, ExpertMemory::kPerExpert));
  checkpoint.release_all_pages();
  check_expert_hashes(*store, changed.assigned, this_thread);
  report.moved_bytes = static_cast<int64_t>(new_bytes);
  return store;
}

// Both sets are there until the step of the switch. The plan with the most memory says how much a rank may take, and the operator
// how much more.
void ExpertStager::require_room(const ExpertPolicy& policy, const Wanted& wanted, size_t new_bytes) const {
  const size_t largest = std::ranges::max_element(policies_, {}, &ExpertPolicy::expert_room)->expert_room;
  const size_t extra_bytes = wanted.order.extra_bytes;
  const size_t room = std::max({largest, serving_room_, policy.expert_room}) + extra_bytes;
  size_t needed = new_bytes;
  for (const std::vector<ServedExpert>& layer : wanted.served) {
    for (const ServedExpert& expert : layer) needed += bytes_of(expert.slot);
  }
  if (needed <= room) return;
  throw ResourceExhausted("policy " + policy.name + ": the experts that serve and the new copies take " + std::to_string(needed) +
                          " bytes together, but the largest budget of the policies leaves experts " + std::to_string(room) +
                          "; send extra_memory \"" + std::to_string((needed - room + extra_bytes + kMegabyte - 1) / kMegabyte) +
                          "M\" or more with the request, make the plans with more --memory, or restart the server with this one");
}

}  // namespace skipper
