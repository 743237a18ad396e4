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
using Slots = std::vector<std::vector<ExpertSlot>>;

constexpr size_t kMegabyte = 1'000'000;

// Steps come first; on Linux the calling thread alone gets this priority.
void run_behind_steps() {
  constexpr int kLowPriority = 10;
  (void)setpriority(PRIO_PROCESS, 0, kLowPriority);
}

// The experts that have to be made, [MoE layer][of those that change their format], and what the plan says of each.
struct ChangedExperts {
  Slots slots;
  std::vector<std::vector<AssignedExpert>> assigned;
};

ChangedExperts experts_to_make(const ExpertStore& serving, const ExpertAssignment& wanted) {
  ChangedExperts changed;
  for (int layer = 0; layer < serving.num_layers(); ++layer) {
    std::vector<ExpertSlot>& slots = changed.slots.emplace_back();
    std::vector<AssignedExpert>& assigned = changed.assigned.emplace_back();
    const std::span<const ExpertSlot> now = serving.slots(layer);
    for (size_t slot = 0; slot < now.size(); ++slot) {
      const AssignedExpert& next = wanted.at(layer, slot);
      if (next.format == now[slot].format) continue;
      slots.push_back({.expert = now[slot].expert, .format = next.format});
      assigned.push_back(next);
    }
  }
  return changed;
}

size_t bytes_of(const Slots& slots, const ExpertStore& store) {
  size_t sum = 0;
  for (const std::vector<ExpertSlot>& layer : slots) {
    for (const ExpertSlot& slot : layer) sum += stored_expert_bytes(slot.format, store.hidden_size(), store.intermediate_size());
  }
  return sum;
}

size_t bytes_of(const ExpertStore& store) {
  size_t sum = 0;
  for (int layer = 0; layer < store.num_layers(); ++layer) {
    for (const ExpertSlot& slot : store.slots(layer)) {
      sum += stored_expert_bytes(slot.format, store.hidden_size(), store.intermediate_size());
    }
  }
  return sum;
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

void ExpertStager::follow(const ExpertOrder& order, const std::string& posted_plan) {
  if (order.version != version_) activate(order.version);
  if (order.staged_version != ordered_version_) order_staging(order, posted_plan);
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

void ExpertStager::order_staging(const ExpertOrder& order, const std::string& posted_plan) {
  {
    const std::lock_guard lock(mutex_);
    if (staged_) retired_ = {.store = std::move(staged_), .successor = 0, .since = Clock::now()};
    report_ = {.version = order.is_staging() ? order.staged_version : 0};
    wanted_ = order.is_staging() ? std::optional(Wanted{order, posted_plan}) : std::nullopt;
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
    store = load(policy, order.extra_bytes, report);
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

// The checkpoint is opened anew, so that one that has gone since the start is found out.
std::unique_ptr<ExpertStore> ExpertStager::load(const ExpertPolicy& policy, uint64_t extra_bytes, StagingReport& report) {
  ChangedExperts changed = experts_to_make(source_.model.expert_store(), policy.assignment);
  const size_t new_bytes = bytes_of(changed.slots, source_.model.expert_store());
  require_room(policy, new_bytes, extra_bytes);
  const Checkpoint checkpoint(source_.checkpoint);
  ThreadPool& this_thread = ThreadPool::caller_only();
  const WeightSource weights{checkpoint, source_.model.config(), source_.formats};
  auto store = std::make_unique<ExpertStore>(
      load_expert_store(weights, std::move(changed.slots), this_thread, ExpertMemory::kPerExpert));
  checkpoint.release_all_pages();
  check_expert_hashes(*store, changed.assigned, this_thread);
  report.moved_bytes = static_cast<int64_t>(new_bytes);
  return store;
}

// Both sets are there until the step of the switch. The plan with the most memory says how much a rank may take, and the operator
// how much more.
void ExpertStager::require_room(const ExpertPolicy& policy, size_t new_bytes, size_t extra_bytes) const {
  const size_t largest = std::ranges::max_element(policies_, {}, &ExpertPolicy::expert_room)->expert_room;
  const size_t room = std::max({largest, serving_room_, policy.expert_room}) + extra_bytes;
  const size_t needed = bytes_of(source_.model.expert_store()) + new_bytes;
  if (needed <= room) return;
  throw ResourceExhausted("policy " + policy.name + ": the experts that serve and the new copies take " + std::to_string(needed) +
                          " bytes together, but the largest budget of the policies leaves experts " + std::to_string(room) +
                          "; send extra_memory \"" + std::to_string((needed - room + extra_bytes + kMegabyte - 1) / kMegabyte) +
                          "M\" or more with the request, make the plans with more --memory, or restart the server with this one");
}

}  // namespace skipper
