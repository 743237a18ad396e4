// What tells one expert's weights in memory from any others: a hash over their bytes, for plans and their checks.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "experts/expert_store.h"
#include "model/expert_assignment.h"
#include "model/weight_loader.h"

namespace skipper {

// The first 16 hexadecimal digits of SHA-256 over the bytes as they lie in memory (kernels/packed_matrix.h): codes, scales and
// zero points of gate_up, then those of down; what a format does not have adds nothing. tools/check_plan_hashes.py computes it
// again.
std::string expert_hash(const ExpertMatrices& matrices);

// Throws InvalidFile naming the first expert whose hash is not the assigned one, assigned[layer][slot] of the store's slots.
// Experts without one, and those on disk, are not looked at. `store` is frozen.
void check_expert_hashes(const ExpertStore& store, const std::vector<std::vector<AssignedExpert>>& assigned, ThreadPool& workers);

// The hashes of experts of one layer, loaded and rounded for it and freed again, in the order of `slots`.
std::vector<std::string> hashes_of_layer(const WeightSource& source, int moe_layer, std::span<const ExpertSlot> slots,
                                         ThreadPool& workers);

}  // namespace skipper
