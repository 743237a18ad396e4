// A plan as a table for people.
#pragma once

#include <string>

#include "planning/plan_problem.h"

namespace skipper {

// Per rank and memory what is used by kind against the budget; copies by format and tier; bytes a token, loss, speed,
// certificate.
std::string plan_report(const ExpertPlan& plan, const PlanProblem& problem);

// One line: "short by X on rank R: do one of ...", with what would help.
struct ShortageAdvice {
  size_t enough_memory = 0;  // on every rank, of the memory that is short
  int enough_ranks = 0;      // with the memory of the smallest rank each; 0: none would do
  int64_t enough_kv_blocks = 0;  // 0: none would do
  bool has_disk = false;
};
std::string shortage_line(const MemoryShortage& shortage, const ShortageAdvice& advice);

}  // namespace skipper
