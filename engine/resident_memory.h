// What this process holds of the system's memory, and how what is free in it goes back.
#pragma once

#include <cstdint>

namespace skipper {

// Resident bytes, mapped pages of files among them; 0 where the system does not tell.
int64_t resident_bytes();

// Gives free memory of the allocator back to the system. Takes the locks of all threads' allocations for a moment.
void return_free_memory();

}  // namespace skipper
