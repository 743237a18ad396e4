// A program for mpirun that plays one scenario, named by its argument: traffic of known size, or a way to fail.
#include <cstdio>
#include <functional>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"
#include "comm/communicator_factory.h"

namespace skipper {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

using Bytes = std::vector<std::byte>;

// Rank 0 sends `sent` bytes to rank 1, which expects `expected`.
void send_to_rank_1(Communicator& comm, int64_t sent, int64_t expected) {
  Stream stream;
  Bytes bytes(8);
  const std::vector<int64_t> zeros = {0, 0};
  const std::vector<int64_t> send_counts = {0, sent};
  const std::vector<int64_t> recv_counts = {expected, 0};
  const auto claimed = static_cast<size_t>(sent);  // refused by size before a byte is read
  if (comm.rank() == 0) comm.all_to_all_v({bytes.data(), claimed}, send_counts, {}, zeros, stream);
  if (comm.rank() == 1) comm.all_to_all_v({}, zeros, {bytes.data(), bytes.size()}, recv_counts, stream);
}

// control: 1000 bytes broadcast, 10 gathered, 77 broadcast to idle ranks. data: 100 to oneself, 5 + 3 r to the other.
void known_traffic(ProcessGroup& group) {
  Stream stream;
  Bytes buffer(1000);
  Bytes gathered(20);
  group.control->broadcast({buffer.data(), 1000}, 0, stream);
  group.control->all_gather({buffer.data(), 10}, {gathered.data(), 20}, stream);
  group.control->idle_broadcast({buffer.data(), 77}, 0, seconds(10), stream);
  group.control->barrier(stream);

  const int me = group.data->rank();
  std::vector<int64_t> send_counts(2);
  std::vector<int64_t> recv_counts(2);
  send_counts[static_cast<size_t>(me)] = recv_counts[static_cast<size_t>(me)] = 100;
  send_counts[static_cast<size_t>(1 - me)] = 5 + 3 * me;
  recv_counts[static_cast<size_t>(1 - me)] = 5 + 3 * (1 - me);
  Bytes received(200);
  for (int i = 0; i < 3; ++i) {
    group.data->all_to_all_v({buffer.data(), 200}, send_counts, {received.data(), 200}, recv_counts, stream);
  }
  const std::vector<int64_t> zeros = {0, 0};
  group.data->all_to_all_v({}, zeros, {}, zeros, stream);
}

void rank_1_does_not_come(ProcessGroup& group) {
  Stream stream;
  if (group.control->rank() == 1) std::this_thread::sleep_for(seconds(60));
  group.control->set_context({17, 3, "dispatch"});
  group.control->barrier(stream);
}

void rank_1_aborts(ProcessGroup& group) {
  Stream stream;
  if (group.control->rank() == 1) group.control->abort("rank 1 ran out of memory");
  group.data->set_context({5, -1, "plan"});
  group.data->barrier(stream);
}

void rank_1_is_aborted_while_it_hangs(ProcessGroup& group) {
  Stream stream;
  if (group.control->rank() == 1) {
    std::thread watchdog([&] { group.control->abort("the engine hangs"); });
    std::this_thread::sleep_for(seconds(60));
    watchdog.join();
  }
  group.data->barrier(stream);
}

void rank_1_throws(ProcessGroup& group) {
  Stream stream;
  if (group.control->rank() == 1) throw InvalidFile("model.safetensors: truncated");
  group.control->barrier(stream);
}

void rank_1_drops_an_operation(ProcessGroup& group) {
  Stream stream;
  const std::vector<int64_t> zeros = {0, 0};
  const auto pending = group.data->start_all_to_all_v({}, zeros, {}, zeros, stream);
  if (group.data->rank() == 0) pending->finish();
  if (group.data->rank() == 1) throw InvalidFile("thrown between start and finish");
  group.data->barrier(stream);
}

using Scenario = std::function<void(ProcessGroup&)>;

const std::map<std::string, Scenario>& scenarios() {
  static const std::map<std::string, Scenario> all = {
      {"known_traffic", known_traffic},
      {"rank_1_does_not_come", rank_1_does_not_come},
      {"rank_1_aborts", rank_1_aborts},
      {"rank_1_is_aborted_while_it_hangs", rank_1_is_aborted_while_it_hangs},
      {"rank_1_throws", rank_1_throws},
      {"rank_1_drops_an_operation", rank_1_drops_an_operation},
      {"message_is_too_short", [](ProcessGroup& group) { send_to_rank_1(*group.data, 3, 4); }},
      {"message_is_too_long", [](ProcessGroup& group) { send_to_rank_1(*group.data, 5, 4); }},
      {"part_is_over_two_gigabytes", [](ProcessGroup& group) { send_to_rank_1(*group.data, int64_t{1} << 31, 4); }},
  };
  return all;
}

int play(const std::string& name, milliseconds deadline) {
  try {
    ProcessGroup group = join_process_group();
    open_communicators({deadline}, group);
    scenarios().at(name)(group);
    return 0;
  } catch (const Error& error) {
    std::fprintf(stderr, "skipper: error: %s\n", error.what());
    return 1;
  }
}

}  // namespace
}  // namespace skipper

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  return skipper::play(argv[1], std::chrono::milliseconds(std::stoi(argv[2])));
}
