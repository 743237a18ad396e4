// One stretch of a command's work in which rank 0 drives the engine and the others follow.
#pragma once

#include <functional>

#include "engine/engine.h"
#include "launcher/rank_process.h"

namespace skipper {

// Rank 0 works while the others follow its steps; all leave together, with its error if there is one. The engine can go on in
// another phase.
void run_phase(RankProcess& process, Engine& engine, const std::function<void()>& work);

}  // namespace skipper
