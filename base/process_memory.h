// What processes of this host hold of its memory, and how what is free in this one goes back.
#pragma once

#include <cstdint>
#include <optional>

namespace skipper {

// Resident bytes of a process, shared pages and mapped pages of files among them; nothing when there is no such process.
std::optional<int64_t> resident_bytes(int64_t pid);

// Of this one; 0 where the system does not tell.
int64_t resident_bytes();

// Gives free memory of the allocator back to the system. Takes the locks of all threads' allocations for a moment.
void return_free_memory();

}  // namespace skipper
