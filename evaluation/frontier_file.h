// frontier.json: a ladder of operating points, each with what was measured at it.
#pragma once

#include <filesystem>
#include <string>

#include "evaluation/frontier_run.h"

namespace skipper {

// Where and on what a frontier was measured.
struct FrontierOrigin {
  std::string model_fingerprint;
  PlacementWorld world;
};

// As `serve --operating_point` reads it:
//   {"version":1,"model_fingerprint":f,"placement":{"ranks":n,"ranks_per_node":m},"levels":[operating point + "measured":{...}]}
// "measured" holds, on the held-out split: "target" (the gain asked for), "kl" (mean nats per answer token), "top1_flips" (share
// of answer tokens), "answer_tokens", "skip_ratio" (all, and by class and phase), "bytes" by hop (sent, saved), "step_ms" and
// "predicted_step_ms".
std::string to_json(const FrontierResult& result, const FrontierOrigin& origin);

// Writes next to `path` and renames, so that a reader sees the old file or the whole new one. Throws Error.
void write_file_atomically(const std::filesystem::path& path, const std::string& content);

// Throws Error when a file could not be made or replaced at `path`; leaves nothing behind.
void require_writable(const std::filesystem::path& path);

}  // namespace skipper
