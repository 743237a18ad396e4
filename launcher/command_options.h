// What serve and eval read from the command line alike.
#pragma once

#include "configs/server_config.h"
#include "launcher/flags.h"
#include "launcher/rank_process.h"

namespace skipper {

// The config file with the flags on top. Throws InvalidFile.
ServerConfig server_config_from(const CommandLine& line);

RankOptions rank_options_from(const CommandLine& line);

}  // namespace skipper
