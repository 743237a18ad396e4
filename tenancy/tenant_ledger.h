// The file in which an operator says what memory of a host its tenants share, and by which rights.
//
// Goals: one file for all servers of a host, read by each of them, written by people alone. Not: a record of who is there; that
// is the registry's.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace skipper {

struct TenantEntry {
  std::string name;      // letters, digits, '.', '_', '-'; files are named after it
  int64_t weight = 100;  // of its share, 1 to 10000
  int64_t floor = 0;     // bytes that are never lent to others for good
  int64_t ceiling = 0;   // bytes that it never gets more than; the file's default is all of the memory
};

struct TenantLedger {
  std::filesystem::path path;
  int64_t memory = 0;  // bytes of the host for all ranks of all tenants together
  std::chrono::seconds patience{60};  // that a tenant waits at its start for others to give memory back
  std::vector<TenantEntry> tenants;

  // Null when there is none of that name.
  const TenantEntry* find(const std::string& name) const;
  // The same. Throws InvalidFile naming the tenants that there are.
  const TenantEntry& at(const std::string& name) const;
};

//   {"version": 1, "memory": "64G", "wait_seconds": 60,
//    "tenants": [{"name": "chat", "weight": 200, "floor": "16G", "ceiling": "40G"}, {"name": "search"}]}
//
// Throws InvalidFile in one line for what is missing, unknown or out of range, a name that comes twice, a floor above its
// ceiling, floors that are more than the memory together.
TenantLedger load_tenant_ledger(const std::filesystem::path& path);

}  // namespace skipper
