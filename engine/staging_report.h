// What a rank tells rank 0 about the experts that it makes ready for a switch; plain data of fixed size.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <string_view>

#include "cluster/switch_state.h"

namespace skipper {

enum class StagingState : uint8_t {
  kUnderWay,  // the new experts are being made, or the old ones freed
  kReady,
  kFailed,
  kFreed,     // the new experts serve, and the memory of the old ones is the system's again
};

struct StagingReport {
  uint32_t version = 0;  // that the experts were ordered for; 0: none
  StagingState state = StagingState::kUnderWay;
  std::array<char, 243> reason = {};  // of kFailed, ending with 0
  int64_t moved_bytes = 0;            // memory of the new copies
  double seconds = 0.0;               // of reading and rounding them
  double freed_seconds = 0.0;         // of kFreed: since the new experts began to serve
  SwitchMemory memory = {};           // as far as it is known

  std::string_view reason_text() const { return reason.data(); }
  void set_reason(std::string_view text) {
    reason.fill('\0');
    std::copy_n(text.begin(), std::min(text.size(), reason.size() - 1), reason.begin());
  }
};

}  // namespace skipper
