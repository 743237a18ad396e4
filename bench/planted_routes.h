// Routes recorded on one model, laid over the layers and experts of another one.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "residency/route_trace.h"

namespace skipper {

// The generated tokens of each request of an audit file, in order: one set for every MoE layer of every token. Requests with
// fewer than `num_tokens` are left out. Throws InvalidFile.
std::vector<RouteTrace> recorded_answers(const std::filesystem::path& audit, int64_t num_tokens);

// One token a step through `counts`, from answers of a smaller model, each used in one place for its skew and its
// correlations: experts fall into as many groups as the recorded model fits in, layers into blocks of its depth, and every
// (block, group) follows an answer of its own. So a token's experts follow those of the layer before and of the token before as
// they did when recorded, but for the first layer of a block. top_k becomes the recorded one times the groups.
//
//   recorded 6 layers × 32 experts, top-4, for 16 × 64, top-8:
//     layers 0–5: answer 0 for experts 0–31, answer 1 for 32–63; layers 6–11: answers 2 and 3; layers 12–15: the first four
//     layers of answers 4 and 5
//
// Throws Error where experts do not divide into groups, or for too few answers.
RouteTrace plant_routes(const std::vector<RouteTrace>& answers, const ExpertCounts& counts, int64_t num_steps);

}  // namespace skipper
