#include "base/process_memory.h"

#include <malloc.h>
#include <unistd.h>

#include <fstream>
#include <string>

namespace skipper {

std::optional<int64_t> resident_bytes(int64_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/statm");
  int64_t num_pages = 0, num_resident = 0;
  if (!(file >> num_pages >> num_resident)) return std::nullopt;
  return num_resident * sysconf(_SC_PAGESIZE);
}

int64_t resident_bytes() { return resident_bytes(getpid()).value_or(0); }

void return_free_memory() { (void)malloc_trim(0); }

}  // namespace skipper
