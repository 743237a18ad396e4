#include "engine/resident_memory.h"

#include <malloc.h>
#include <unistd.h>

#include <fstream>

namespace skipper {

int64_t resident_bytes() {
  std::ifstream file("/proc/self/statm");
  int64_t num_pages = 0, num_resident = 0;
  return file >> num_pages >> num_resident ? num_resident * sysconf(_SC_PAGESIZE) : 0;
}

void return_free_memory() { (void)malloc_trim(0); }

}  // namespace skipper
