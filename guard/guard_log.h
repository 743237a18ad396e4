// The guard's audit: one line of JSON each time that it steps in or is armed again.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "guard/guard_judge.h"

namespace skipper {

// What serves before and after: a plan's or policy's name with the version of its experts, or "reference" with kReferenceVersion.
struct ServedWeights {
  std::string name;
  int64_t version = 0;
};

enum class GuardActionKind : uint8_t {
  kRollback,  // the reference steps in
  kArm,       // an operator lets the same experts serve again
  kReturn,    // other experts serve, those of the last good plan or of one that an operator has asked for
};

struct GuardAction {
  GuardActionKind kind = GuardActionKind::kRollback;
  int64_t step = 0;              // at whose end it was decided; the next one runs on `to`
  uint32_t term = 0;             // of the guard, that ends with it
  ServedWeights from = {};
  ServedWeights to = {};
  const GuardBreach* breach = nullptr;  // of kRollback
};

// {"time": "2026-01-01T00:00:00Z", "step": 7, "term": 0, "action": "rollback", "from": {"name": .., "version": ..}, "to": {..},
//  "kind": "expert_error", "measured": .., "threshold": .., "samples": .., "rank": .., "moe_layer": .., "expert": ..}
std::string guard_line(const GuardAction& action, const std::string& time);

// Engine thread. A file that cannot be written costs the line, which the server's log has as well, not the server.
class GuardLog {
 public:
  // Throws InvalidFile when the file cannot be opened for appending. An empty path: the server's log alone.
  explicit GuardLog(std::filesystem::path file);

  void write(const GuardAction& action);

 private:
  std::filesystem::path file_;
};

}  // namespace skipper
