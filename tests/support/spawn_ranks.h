// Runs a test body once per rank, every rank a thread with communicators of its own.
#pragma once

#include <functional>

#include "comm/comm_config.h"
#include "comm/communicator.h"

namespace skipper {

// spawn_ranks(4, [&](Communicator& comm) { ... comm.rank() ... });
// When a body throws, its group is aborted so that the other ranks wake up, and the first exception is thrown again here
// after all threads have ended. Inside a body use EXPECT_*: ASSERT_* would leave one rank and strand the others.
using RankBody = std::function<void(Communicator& comm)>;
void spawn_ranks(int num_ranks, const RankBody& body, const CommConfig& config = {});

// The same with the two communicators that an engine has.
using EngineRankBody = std::function<void(Communicator& control, Communicator& data)>;
void spawn_engine_ranks(int num_ranks, const EngineRankBody& body, const CommConfig& config = {});

}  // namespace skipper
