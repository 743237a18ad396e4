#include "launcher/tenant_place.h"

#include <glog/logging.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <ctime>
#include <vector>

#include "base/error.h"
#include "launcher/startup_agreement.h"
#include "tenancy/fair_shares.h"

namespace skipper {
namespace {

using Clock = std::chrono::steady_clock;

constexpr long kLookNanoseconds = 100'000'000;
constexpr std::chrono::seconds kQuietWait{2};

std::vector<int64_t> pids_of_all(Communicator& startup) {
  const int64_t own = getpid();
  std::vector<int64_t> all(static_cast<size_t>(startup.size()));
  Stream stream;
  startup.all_gather({reinterpret_cast<const std::byte*>(&own), sizeof(own)},
                     {reinterpret_cast<std::byte*>(all.data()), all.size() * sizeof(own)}, stream);
  return all;
}

// The signals that end a server are blocked, and nobody else waits for them yet.
void wait_for_signal() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  const timespec patience{.tv_sec = 0, .tv_nsec = kLookNanoseconds};
  if (sigtimedwait(&signals, nullptr, &patience) <= 0) return;
  throw Cancelled("stopped by a signal while waiting for a share of memory");
}

int64_t wait_for_share(TenantMember& member) {
  Clock::time_point next_line = Clock::now();
  const int64_t share = member.wait_for_share([&](const TenantWait& wait) {
    if (Clock::now() >= next_line) {
      LOG(INFO) << "tenant=" << member.name() << " waits for its share=" << bytes_text(wait.share)
                << " of which others still hold " << bytes_text(wait.missing) << "; seconds_left=" << wait.left.count() / 1000;
      next_line = Clock::now() + kQuietWait;
    }
    wait_for_signal();
  });
  LOG(INFO) << "tenant=" << member.name() << " share=" << bytes_text(share);
  return share;
}

}  // namespace

TenantNeeds RankNeeds::of_group(int num_ranks) const {
  return {.needs = num_ranks * (least + staging), .demand = num_ranks * (most + staging), .can_replan = can_replan};
}

TenantPlace::TenantPlace(const TenantOptions& options, Communicator& startup, const std::function<RankNeeds()>& needs) {
  const std::vector<int64_t> pids = pids_of_all(startup);
  run_together(startup, [&] {
    if (startup.rank() != 0) return;
    needs_ = needs();
    member_.emplace(options.ledger, options.name, needs_.of_group(startup.size()), pids);
  });
  run_together(startup, [&] {
    if (startup.rank() == 0) return;
    const TenantRegistry registry(options.ledger);
    const FileLock lock = registry.lock();
    place_ = registry.claim(options.name, startup.rank());
  });
  run_together(startup, [&] {
    if (member_) memory_per_rank_ = wait_for_share(*member_) / startup.size() - needs_.staging;
  });
  Stream stream;
  startup.broadcast({reinterpret_cast<std::byte*>(&memory_per_rank_), sizeof(memory_per_rank_)}, 0, stream);
}

}  // namespace skipper
