#include "tenancy/tenant_registry.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/error.h"
#include "base/json_fields.h"
#include "tenancy/fair_shares.h"

namespace skipper {
namespace {

constexpr const char* kLockSuffix = ".lock";
constexpr mode_t kOwnerWrites = 0644;

[[noreturn]] void fail(const std::filesystem::path& path, const std::string& what) {
  throw Error(path.string() + ": " + what + ": " + std::strerror(errno) +
              "; tenants of one host need to write there, as the same user");
}

// `length` 0: up to the end of the file, whatever it is.
struct flock range_of(int16_t kind, off_t start, off_t length) {
  struct flock range = {};
  range.l_type = kind;
  range.l_whence = SEEK_SET;
  range.l_start = start;
  range.l_len = length;
  return range;
}

// Descriptors do not survive exec, or a program that a server starts would hold its lock.
int open_file(const std::filesystem::path& path, int flags) { return open(path.c_str(), flags | O_CLOEXEC, kOwnerWrites); }

// Whether somebody else holds a lock on a part of the file.
bool is_locked(int descriptor, const std::filesystem::path& path) {
  struct flock range = range_of(F_WRLCK, 0, 0);
  if (fcntl(descriptor, F_OFD_GETLK, &range) != 0) fail(path, "cannot be asked for its lock");
  return range.l_type != F_UNLCK;
}

int64_t bytes_of(const JsonFields& fields, const char* key) { return fields.required_int(key, 0, kMostShareBytes); }

}  // namespace

FileLock::~FileLock() {
  if (descriptor_ >= 0) close(descriptor_);
}

FileLock::FileLock(FileLock&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}

FileLock& FileLock::operator=(FileLock&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

// One directory, by whatever links the file is named.
TenantRegistry::TenantRegistry(const std::filesystem::path& ledger)
    : directory_(std::filesystem::weakly_canonical(ledger).string() + ".d") {}

FileLock TenantRegistry::lock() const {
  std::error_code status;
  std::filesystem::create_directory(directory_, status);
  const std::filesystem::path path = directory_ / "lock";
  const int descriptor = open_file(path, O_RDWR | O_CREAT);
  if (descriptor < 0) fail(path, "cannot be opened");
  FileLock lock(descriptor);
  struct flock range = range_of(F_WRLCK, 0, 0);
  while (fcntl(descriptor, F_OFD_SETLKW, &range) != 0) {
    if (errno != EINTR) fail(path, "cannot be locked");
  }
  return lock;
}

FileLock TenantRegistry::lock_to_read() const {
  const std::filesystem::path path = directory_ / "lock";
  const int descriptor = open_file(path, O_RDONLY);
  if (descriptor < 0 && errno == ENOENT) return FileLock();
  if (descriptor < 0) fail(path, "cannot be opened");
  FileLock lock(descriptor);
  struct flock range = range_of(F_RDLCK, 0, 0);
  while (fcntl(descriptor, F_OFD_SETLKW, &range) != 0) {
    if (errno != EINTR) fail(path, "cannot be locked");
  }
  return lock;
}

std::vector<PresentTenant> TenantRegistry::present() const {
  std::vector<PresentTenant> tenants;
  std::error_code status;
  for (const auto& entry : std::filesystem::directory_iterator(directory_, status)) {
    if (entry.path().extension() != kLockSuffix) continue;
    const FileLock file(open_file(entry.path(), O_RDONLY));
    if (file.descriptor_ < 0) fail(entry.path(), "cannot be opened");
    if (!is_locked(file.descriptor_, entry.path())) continue;
    const std::string name = entry.path().stem().string();
    tenants.push_back({name, read(name)});
  }
  std::ranges::sort(tenants, {}, &PresentTenant::name);
  return tenants;
}

FileLock TenantRegistry::claim(const std::string& name, int rank) const {
  const std::filesystem::path path = lock_path(name);
  FileLock lock(open_file(path, O_RDWR | O_CREAT));
  if (lock.descriptor_ < 0) fail(path, "cannot be opened");
  if (rank == 0 && is_locked(lock.descriptor_, path)) {
    const std::vector<int64_t> pids = read(name).pids;
    throw Error("tenant '" + name + "' is already served, by process " + std::to_string(pids.at(0)) +
                "; give this server another --tenant, or end that one");
  }
  struct flock range = range_of(F_WRLCK, rank, 1);
  if (fcntl(lock.descriptor_, F_OFD_SETLK, &range) != 0) fail(path, "cannot be locked for rank " + std::to_string(rank));
  return lock;
}

void TenantRegistry::write(const std::string& name, const TenantState& state) const {
  const nlohmann::ordered_json document = {
      {"version", 1}, {"pids", state.pids}, {"needs", state.needs}, {"demand", state.demand}, {"held", state.held}};
  const std::filesystem::path path = state_path(name), neighbour = path.string() + ".new";
  std::ofstream file(neighbour, std::ios::binary);
  file << document.dump() << std::flush;
  const bool is_written = file.good();
  file.close();
  if (!is_written || std::rename(neighbour.c_str(), path.c_str()) != 0) fail(path, "cannot be written");
}

std::filesystem::path TenantRegistry::lock_path(const std::string& name) const { return directory_ / (name + kLockSuffix); }

std::filesystem::path TenantRegistry::state_path(const std::string& name) const { return directory_ / (name + ".json"); }

TenantState TenantRegistry::read(const std::string& name) const {
  const nlohmann::json document = read_json_file(state_path(name), size_t{1} << 20);
  const JsonFields fields(document, state_path(name).string());
  fields.required_int("version", 1, 1);
  TenantState state{.pids = fields.optional_ints("pids", 1, int64_t{1} << 31),
                    .needs = bytes_of(fields, "needs"),
                    .demand = bytes_of(fields, "demand"),
                    .held = bytes_of(fields, "held")};
  if (state.pids.empty()) fields.fail("pids", "is missing; expected the process of each rank");
  fields.reject_unknown_keys();
  return state;
}

}  // namespace skipper
