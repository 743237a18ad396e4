#include "tests/comm/collective_cases.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <numeric>
#include <vector>

namespace skipper::collective_cases {

namespace {

using Bytes = std::vector<std::byte>;

// Bytes from rank i to rank j of the hand-written table below: empty rows, empty columns, primes, one.
constexpr std::array<std::array<int64_t, 4>, 4> kTable = {{
    {3, 1, 0, 7},
    {0, 0, 0, 0},
    {13, 2, 5, 1},
    {0, 31, 0, 64},
}};

// A byte that tells source, destination, position and round apart.
std::byte pattern(int source, int destination, size_t position, int round) {
  const size_t mixed = static_cast<size_t>(source) * 89 + static_cast<size_t>(destination) * 37 + position * 7 +
                       static_cast<size_t>(round) * 151;
  return static_cast<std::byte>(mixed % 251);
}

// One exchange of a rank: counts and buffers for parts whose sizes are count_of(source, destination).
struct Exchange {
  std::vector<int64_t> send_counts;
  std::vector<int64_t> recv_counts;
  Bytes send;
  Bytes recv;
  int round = 0;

  template <typename CountOf>
  Exchange(const Communicator& comm, int round_number, CountOf count_of) : round(round_number) {
    for (int peer = 0; peer < comm.size(); ++peer) {
      send_counts.push_back(count_of(comm.rank(), peer));
      recv_counts.push_back(count_of(peer, comm.rank()));
      for (size_t i = 0; i < static_cast<size_t>(send_counts.back()); ++i) {
        send.push_back(pattern(comm.rank(), peer, i, round));
      }
    }
    recv.resize(static_cast<size_t>(std::accumulate(recv_counts.begin(), recv_counts.end(), int64_t{0})));
  }

  std::unique_ptr<PendingOperation> start(Communicator& comm, Stream& stream) {
    return comm.start_all_to_all_v({send.data(), send.size()}, send_counts, {recv.data(), recv.size()}, recv_counts,
                                   stream);
  }

  void expect_received(const Communicator& comm) const {
    size_t at = 0;
    for (int source = 0; source < comm.size(); ++source) {
      for (size_t i = 0; i < static_cast<size_t>(recv_counts[static_cast<size_t>(source)]); ++i, ++at) {
        ASSERT_EQ(recv[at], pattern(source, comm.rank(), i, round)) << "from rank " << source << ", byte " << i;
      }
    }
  }
};

int64_t table_count(int source, int destination) {
  return kTable[static_cast<size_t>(source)][static_cast<size_t>(destination)];
}

}  // namespace

void broadcast_reaches_all_ranks_from_every_root(Communicator& comm) {
  Stream stream;
  for (int root = 0; root < comm.size(); ++root) {
    for (const size_t num_bytes : {size_t{0}, size_t{1}, size_t{4096}, size_t{1000003}}) {
      Bytes buffer(num_bytes);
      if (comm.rank() == root) {
        for (size_t i = 0; i < num_bytes; ++i) buffer[i] = pattern(root, 0, i, 1);
      }
      comm.broadcast({buffer.data(), buffer.size()}, root, stream);
      for (size_t i = 0; i < num_bytes; ++i) ASSERT_EQ(buffer[i], pattern(root, 0, i, 1)) << "byte " << i;
    }
  }
}

void idle_broadcast_reaches_all_ranks(Communicator& comm) {
  Stream stream;
  std::array<std::byte, 3> buffer{};
  if (comm.rank() == 0) buffer = {std::byte{5}, std::byte{6}, std::byte{7}};
  comm.idle_broadcast({buffer.data(), buffer.size()}, 0, std::chrono::seconds(30), stream);
  EXPECT_EQ(buffer, (std::array<std::byte, 3>{std::byte{5}, std::byte{6}, std::byte{7}}));
}

void all_gather_is_in_rank_order(Communicator& comm) {
  Stream stream;
  for (const size_t num_bytes : {size_t{0}, size_t{1}, size_t{7}, size_t{100003}}) {
    Bytes send(num_bytes);
    for (size_t i = 0; i < num_bytes; ++i) send[i] = pattern(comm.rank(), 0, i, 2);
    Bytes recv(num_bytes * static_cast<size_t>(comm.size()));
    comm.all_gather({send.data(), send.size()}, {recv.data(), recv.size()}, stream);
    for (size_t at = 0; at < recv.size(); ++at) {
      ASSERT_EQ(recv[at], pattern(static_cast<int>(at / num_bytes), 0, at % num_bytes, 2)) << "byte " << at;
    }
  }
}

// Terms whose sum depends on the order they are added in: 1e16 + 1 - 1e16 + ... is 0 or 1.
void all_reduce_sum_has_equal_bits_on_all_ranks(Communicator& comm) {
  Stream stream;
  constexpr std::array<double, 4> kTerms = {1e16, 1.0, -1e16, 0.1};
  double expected = 0.0;
  for (int rank = 0; rank < comm.size(); ++rank) expected += kTerms[static_cast<size_t>(rank) % 4];
  std::vector<double> values(3, kTerms[static_cast<size_t>(comm.rank()) % 4]);
  values[1] = comm.rank();
  comm.all_reduce_sum(values, stream);
  EXPECT_EQ(values[0], expected);
  EXPECT_EQ(values[1], comm.size() * (comm.size() - 1) / 2.0);
  EXPECT_EQ(values[2], expected);
  comm.all_reduce_sum(std::span<double>(), stream);
}

void all_to_all_v_moves_the_table(Communicator& comm) {
  ASSERT_LE(comm.size(), 4);
  Stream stream;
  Exchange exchange(comm, 3, table_count);
  exchange.start(comm, stream)->finish();
  exchange.expect_received(comm);
}

// Over the size where MPI changes from eager to rendezvous messages.
void all_to_all_v_moves_large_uneven_parts(Communicator& comm) {
  Stream stream;
  Exchange exchange(comm, 4, [](int source, int destination) -> int64_t {
    return (source + destination) % 3 == 0 ? 0 : 70001 * (source + 1) + 13 * destination;
  });
  exchange.start(comm, stream)->finish();
  exchange.expect_received(comm);
}

void all_to_all_v_of_nothing_completes(Communicator& comm) {
  Stream stream;
  const std::vector<int64_t> zeros(static_cast<size_t>(comm.size()), 0);
  comm.all_to_all_v({}, zeros, {}, zeros, stream);
}

void operations_in_flight_do_not_mix(Communicator& comm) {
  Stream stream;
  Exchange first(comm, 5, table_count);
  Exchange second(comm, 6, [](int source, int destination) -> int64_t { return 1 + source + 2 * destination; });
  Exchange third(comm, 7, [](int source, int destination) { return table_count(destination, source); });
  const auto pending_first = first.start(comm, stream);
  const auto pending_second = second.start(comm, stream);
  comm.barrier(stream);
  const auto pending_third = third.start(comm, stream);
  pending_second->finish();
  second.expect_received(comm);
  pending_first->finish();
  first.expect_received(comm);
  pending_third->finish();
  third.expect_received(comm);
}

void many_operations_in_a_row_stay_in_order(Communicator& comm) {
  Stream stream;
  for (int round = 0; round < 200; ++round) {
    Exchange exchange(comm, round, [round](int source, int destination) -> int64_t {
      return (source * 5 + destination * 3 + round) % 7;
    });
    exchange.start(comm, stream)->finish();
    exchange.expect_received(comm);
    int32_t number = comm.rank() == round % comm.size() ? round : -1;
    comm.broadcast({reinterpret_cast<std::byte*>(&number), sizeof(number)}, round % comm.size(), stream);
    ASSERT_EQ(number, round);
  }
}

}  // namespace skipper::collective_cases
