// One server among the tenants of a host: asks for its share, and follows it while tenants come and go.
//
// What a tenant holds is the most memory that it may be using. It lowers it after it has given memory back and raises it before
// it takes any, under the registry's lock and only where the sum over all tenants stays within the ledger's memory. So that sum
// is never exceeded, whatever the others do and in whichever order they see a change.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "tenancy/tenant_registry.h"
#include "tenancy/tenant_shares.h"

namespace skipper {

// Of all its ranks together, in bytes.
struct TenantNeeds {
  int64_t needs = 0;
  int64_t demand = 0;
  bool can_replan = false;  // otherwise it keeps the share that it starts with
};

// What a server waits for at its start.
struct TenantWait {
  int64_t share = 0;
  int64_t missing = 0;  // of it, with others still
  std::chrono::milliseconds left{0};
};

// Rank 0 of a server; one thread at a time.
class TenantMember {
 public:
  // Takes the tenant's place. Throws InvalidFile for a ledger that cannot be read or has no such tenant, Error for a tenant that
  // is served already, and ResourceExhausted in one line, "short by X", where what it needs is not to be had.
  TenantMember(const std::filesystem::path& ledger, const std::string& name, const TenantNeeds& needs, std::vector<int64_t> pids);

  const std::string& name() const { return name_; }
  int64_t held() const { return state_.held; }

  // Returns its share, which it holds from then on, as soon as the others leave room for it. `pause` waits for a moment between
  // two looks, and throws to give up. Throws ResourceExhausted, "short by X", when the ledger's patience has passed.
  int64_t wait_for_share(const std::function<void(const TenantWait&)>& pause);

  // What the server should change its memory to, by the ledger as it is now: less as soon as its share is less, more once others
  // have left room for all of it, which it then holds already. Nothing when its share is what it holds, or waits for others.
  std::optional<int64_t> wanted();
  // From now on the server uses no more than this, which is no more than it holds.
  void settle(int64_t num_bytes);

 private:
  struct Look {
    int64_t share = 0;
    int64_t room = 0;  // what others leave of the ledger's memory
    bool is_granted = false;  // more than before, and held from now on
  };
  Look look();
  void hold(int64_t num_bytes);

  const std::filesystem::path path_;
  const std::string name_;
  TenantRegistry registry_;
  TenantLedger ledger_;  // the last that could be read
  TenantState state_;
  FileLock place_;
  std::string complaint_;  // last logged
};

}  // namespace skipper
