#include "launcher/guard_setup.h"

#include <string>

#include "base/error.h"
#include "guard/reference_loader.h"
#include "planning/memory_size.h"

namespace skipper {

void require_room_for_reference(const GuardConfig& config, const ExpertStore& served, const ReferenceRoom& room, int rank) {
  const size_t needed = reference_bytes(config, served);
  if (needed <= room.bytes) return;
  throw ResourceExhausted("guard.share: the reference experts of rank " + std::to_string(rank) + " take " + memory_text(needed) +
                          " in " + name_of(config.reference_format()) + ", but " + room.plan + " has " +
                          memory_text(room.bytes) + " of its memory left; plan with this --config or more --memory, or give "
                          "guard.reference_experts a smaller format");
}

}  // namespace skipper
