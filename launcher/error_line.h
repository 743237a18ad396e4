// The one line that tells a user what went wrong, from one rank.
#pragma once

#include <string>

namespace skipper {

// "skipper: error: <message>" on stderr, in one write: the output of other processes cannot split it.
void print_error(const std::string& message);

// Whether this process is rank 0, or not started by mpirun or srun. Needs no MPI.
bool is_first_rank();

// Processes that mpirun or srun started, this one included; 1 without them. Needs no MPI.
int num_launched_ranks();

// Of them, those on this host.
int num_launched_ranks_of_this_host();

// For errors that all ranks meet and rank 0 tells: keeps a higher rank from ending first, because the launcher then ends rank 0,
// perhaps before it has spoken. Returns after some seconds where no launcher ends this process.
void wait_for_first_rank();

// For errors that ranks meet at the same moment: waits a moment, the longer the higher the rank, and tells whether mpirun has
// begun to end the group meanwhile (its first sign is SIGCONT). If so, another rank has spoken.
bool lower_rank_has_ended_the_group();

}  // namespace skipper
