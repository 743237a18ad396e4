// Follows a server's share of its host's memory while it serves: less when tenants come, more when they go.
#pragma once

#include <condition_variable>
#include <mutex>
#include <thread>

#include "engine/engine.h"
#include "launcher/rank_process.h"
#include "planning/expert_plan.h"

namespace skipper {

// Rank 0, on a thread of its own, which only looks into small files until the share changes. Then the server plans for the new
// one and changes its experts, some layers at a time where old and new ones do not fit together: it never uses more than the
// larger share.
class TenantWatch {
 public:
  // The process has a tenant that can follow; it, and the engine, outlive the watch.
  TenantWatch(RankProcess& process, Engine& engine);
  ~TenantWatch();
  TenantWatch(const TenantWatch&) = delete;
  TenantWatch& operator=(const TenantWatch&) = delete;

 private:
  bool wait(std::chrono::milliseconds patience);  // false: the end has come
  void run();
  void follow(int64_t share);
  int change_experts(int64_t share);
  void switch_to(const ExpertPlan& plan, const std::string& name);

  RankProcess& process_;
  Engine& engine_;
  TenantMember& member_;
  const RankNeeds needs_;
  ExpertPlan serving_;
  int64_t share_;  // that the serving plan was made for

  std::mutex mutex_;
  std::condition_variable ending_;
  bool is_ending_ = false;
  std::thread thread_;  // last: it uses the members above
};

}  // namespace skipper
