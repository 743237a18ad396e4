#include "tenancy/tenant_ledger.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json_fields.h"
#include "planning/memory_size.h"
#include "tenancy/fair_shares.h"

namespace skipper {
namespace {

constexpr size_t kMostTenants = 64;
constexpr size_t kMostNameCharacters = 64;
constexpr int64_t kMostWaitSeconds = 3600;

int64_t size_of(const JsonFields& fields, const std::string& key) {
  int64_t size = 0;
  try {
    size = static_cast<int64_t>(parse_memory_size(fields.required_string(key), fields.path() + ": " + key));
  } catch (const InvalidRequest& error) {
    throw InvalidFile(error.what());
  }
  if (size <= kMostShareBytes) return size;
  fields.fail(key, "is more than " + bytes_text(kMostShareBytes) + ", which no host has");
}

int64_t optional_size(const JsonFields& fields, const std::string& key, int64_t fallback) {
  return fields.has(key) ? size_of(fields, key) : fallback;
}

std::string name_of_tenant(const JsonFields& fields) {
  const std::string name = fields.required_string("name");
  const auto is_allowed = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '-' || c == '.'; };
  const bool is_short = !name.empty() && name.size() <= kMostNameCharacters;
  if (is_short && name[0] != '.' && std::ranges::all_of(name, is_allowed)) return name;
  fields.fail("name", std::string("'").append(name, 0, kMostNameCharacters) +
                          "' is no name of a tenant; use 1 to 64 letters, digits, '.', '_', '-', not '.' first");
}

TenantEntry parse_entry(const JsonFields& fields, int64_t memory) {
  TenantEntry entry;
  entry.name = name_of_tenant(fields);
  entry.weight = fields.optional_int("weight", entry.weight, 1, kMostShareWeight);
  entry.floor = optional_size(fields, "floor", 0);
  entry.ceiling = optional_size(fields, "ceiling", memory);
  if (entry.floor > entry.ceiling) {
    fields.fail("floor", bytes_text(entry.floor) + " is above the ceiling of " +
                             bytes_text(entry.ceiling) + " (by default all of the memory)");
  }
  fields.reject_unknown_keys();
  return entry;
}

void require_room_for_floors(const TenantLedger& ledger) {
  int64_t floors = 0;
  for (const TenantEntry& tenant : ledger.tenants) floors += tenant.floor;
  if (floors <= ledger.memory) return;
  throw InvalidFile(ledger.path.string() + ": the floors are " + bytes_text(floors) +
                    " together, but memory is " + bytes_text(ledger.memory) + "; lower floors by " +
                    bytes_text(floors - ledger.memory) + ", or raise memory");
}

std::vector<TenantEntry> parse_tenants(const JsonFields& fields, int64_t memory) {
  const nlohmann::json& list = fields.raw("tenants");
  if (!list.is_array() || list.empty() || list.size() > kMostTenants) {
    fields.fail("tenants", "expected a list of 1 to 64 tenants, as [{\"name\": \"chat\", \"weight\": 200}]");
  }
  std::vector<TenantEntry> tenants;
  for (size_t i = 0; i < list.size(); ++i) {
    TenantEntry entry = parse_entry(JsonFields(list[i], fields.path() + ": tenants[" + std::to_string(i) + "]"), memory);
    if (std::ranges::find(tenants, entry.name, &TenantEntry::name) != tenants.end()) {
      fields.fail("tenants", "there are two tenants '" + entry.name + "'; give each its own name");
    }
    tenants.push_back(std::move(entry));
  }
  return tenants;
}

}  // namespace

const TenantEntry* TenantLedger::find(const std::string& name) const {
  const auto found = std::ranges::find(tenants, name, &TenantEntry::name);
  return found == tenants.end() ? nullptr : &*found;
}

const TenantEntry& TenantLedger::at(const std::string& name) const {
  if (const TenantEntry* found = find(name)) return *found;
  std::string names;
  for (const TenantEntry& tenant : tenants) names += (names.empty() ? "" : ", ") + tenant.name;
  throw InvalidFile(path.string() + ": there is no tenant '" + name + "'; its tenants are " + names);
}

TenantLedger load_tenant_ledger(const std::filesystem::path& path) {
  const nlohmann::json document = read_json_file(path, size_t{1} << 20);
  const JsonFields fields(document, path.string());
  fields.required_int("version", 1, 1);
  TenantLedger ledger;
  ledger.path = path;
  ledger.memory = size_of(fields, "memory");
  ledger.patience = std::chrono::seconds(fields.optional_int("wait_seconds", ledger.patience.count(), 0, kMostWaitSeconds));
  ledger.tenants = parse_tenants(fields, ledger.memory);
  fields.reject_unknown_keys();
  require_room_for_floors(ledger);
  return ledger;
}

}  // namespace skipper
