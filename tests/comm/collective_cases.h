// Test bodies that every implementation of Communicator must pass, whatever carries the bytes.
#pragma once

#include "comm/communicator.h"

namespace skipper::collective_cases {

// Each is one rank's part; all ranks of the group call the same one. Failures are gtest EXPECTs.
void broadcast_reaches_all_ranks_from_every_root(Communicator& comm);
void idle_broadcast_reaches_all_ranks(Communicator& comm);
void all_gather_is_in_rank_order(Communicator& comm);
void all_reduce_sum_has_equal_bits_on_all_ranks(Communicator& comm);
void all_to_all_v_moves_the_table(Communicator& comm);
void all_to_all_v_moves_large_uneven_parts(Communicator& comm);
void all_to_all_v_of_nothing_completes(Communicator& comm);
void operations_in_flight_do_not_mix(Communicator& comm);
void many_operations_in_a_row_stay_in_order(Communicator& comm);

}  // namespace skipper::collective_cases
