// Predictions that ranks remember, in files: for runs with other settings, or over another number of ranks.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

#include "comm/rank_of_group.h"
#include "engine/reference_store.h"

namespace skipper {

// Writes what this rank has to `path`.rankN. `origin` says in one line what the predictions are of. Throws Error when it cannot
// be written.
void save_references(const ReferenceStore& store, const std::filesystem::path& path, const std::string& origin,
                     const RankOfGroup& writer);

// Puts into `store` the references whose id `is_wanted`, of all ranks that wrote, however many they were. Throws InvalidFile
// when a file is missing, cut short, or of another origin (both named).
void load_references(ReferenceStore& store, const std::filesystem::path& path, const std::string& origin,
                     const std::function<bool(uint64_t id)>& is_wanted);

}  // namespace skipper
