// A server's place among the tenants of its host, taken when it starts.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "comm/communicator.h"
#include "tenancy/tenant_member.h"

namespace skipper {

// As on the command line; empty: the server shares its memory with nobody.
struct TenantOptions {
  std::string name;
  std::filesystem::path ledger;
};

// Of each rank, in bytes.
struct RankNeeds {
  int64_t least = 0;
  int64_t most = 0;
  bool can_replan = false;  // while it serves
  int64_t staging = 0;      // set aside for new copies of experts beside those that serve, where it can

  // Of all ranks.
  TenantNeeds of_group(int num_ranks) const;
};

// While it lives, the others leave this rank's share to it; all ranks of a server have one.
class TenantPlace {
 public:
  // Takes the place, and waits for the share, with what it waits for in the log. `needs` is called on rank 0. All ranks call it
  // together; it throws on all, as TenantMember does, and Cancelled when a signal ends the waiting.
  TenantPlace(const TenantOptions& options, Communicator& startup, const std::function<RankNeeds()>& needs);

  // Of each rank, in bytes: its part of the share, without what is set aside for staging. The same on every rank.
  int64_t memory_per_rank() const { return memory_per_rank_; }

  // Rank 0: who follows the share. Nobody where it cannot.
  TenantMember* follower() { return needs_.can_replan ? &*member_ : nullptr; }
  const RankNeeds& needs() const { return needs_; }

 private:
  std::optional<TenantMember> member_;  // rank 0
  RankNeeds needs_;                     // rank 0
  FileLock place_;                      // the others
  int64_t memory_per_rank_ = 0;
};

}  // namespace skipper
