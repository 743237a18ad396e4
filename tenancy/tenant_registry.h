// Which tenants of a ledger are there: a directory beside it, in which every process of a tenant holds a lock while it lives.
//
//   tenants.json.d/lock       whoever reads or writes the others holds it
//   tenants.json.d/chat.lock  one byte for each rank of the server 'chat', locked by that rank
//   tenants.json.d/chat.json  what that server says of itself
//
// The kernel gives a lock back when its process has gone, after its memory: what a dead server had is free at once, and no
// lock is ever stale. A server that hangs keeps its share, as it keeps its memory. The locks are of open files
// (F_OFD_SETLK), so that one can be looked at without being taken.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace skipper {

// What a server says of itself; bytes are of all its ranks together.
struct TenantState {
  std::vector<int64_t> pids;  // [rank]
  int64_t needs = 0;   // least memory that it can serve in
  int64_t demand = 0;  // memory beyond which it would use no more
  int64_t held = 0;    // most memory that it may be using now
};

struct PresentTenant {
  std::string name;
  TenantState state;
};

// A lock that ends with this object or with its process.
class FileLock {
 public:
  FileLock() = default;
  ~FileLock();
  FileLock(FileLock&& other) noexcept;
  FileLock& operator=(FileLock&& other) noexcept;

 private:
  friend class TenantRegistry;
  explicit FileLock(int descriptor) : descriptor_(descriptor) {}
  int descriptor_ = -1;
};

// Several processes, and several of one process, may have the same directory open.
class TenantRegistry {
 public:
  explicit TenantRegistry(const std::filesystem::path& ledger);

  // For those who write: makes the directory. The others wait until the lock is gone. Throws Error where that cannot be.
  FileLock lock() const;
  // For those who read; nothing is made. An empty lock where there is no directory, and so nobody present.
  FileLock lock_to_read() const;

  // Under a lock; by name. Throws InvalidFile for a state that no server has written.
  std::vector<PresentTenant> present() const;
  // Under lock(): this process becomes `rank` of a tenant. Throws Error when that rank, or with rank 0 any, is there already.
  FileLock claim(const std::string& name, int rank) const;
  // Under lock(), by whoever has claimed rank 0.
  void write(const std::string& name, const TenantState& state) const;

 private:
  std::filesystem::path lock_path(const std::string& name) const;
  std::filesystem::path state_path(const std::string& name) const;
  TenantState read(const std::string& name) const;

  std::filesystem::path directory_;
};

}  // namespace skipper
