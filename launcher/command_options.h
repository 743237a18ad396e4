// What the commands that run the model read from the command line alike.
#pragma once

#include <cstdint>

#include "configs/server_config.h"
#include "launcher/flags.h"
#include "launcher/rank_process.h"

namespace skipper {

// The config file with the flags on top. Throws InvalidFile.
ServerConfig server_config_from(const CommandLine& line);

// The same for commands that score known tokens: nobody waits for answers in between, so all logits of a step may be due.
ServerConfig scoring_config_from(const CommandLine& line);

RankOptions rank_options_from(const CommandLine& line);

// What an evaluator may keep of the unskipped model's predictions on each rank: --reference_memory.
int64_t reference_bytes_from(const CommandLine& line);

}  // namespace skipper
