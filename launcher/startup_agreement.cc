#include "launcher/startup_agreement.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "base/error.h"

namespace skipper {
namespace {

// One rank's outcome in a fixed-size record.
struct Outcome {
  uint8_t failed = 0;
  std::array<char, 1023> message{};
};

Outcome attempt(const std::function<void()>& work) {
  Outcome outcome;
  try {
    work();
  } catch (const CommError&) {
    // The group itself is broken; there is nobody left to agree with.
    throw;
  } catch (const std::exception& e) {
    outcome.failed = 1;
    std::strncpy(outcome.message.data(), e.what(), outcome.message.size() - 1);
  }
  return outcome;
}

template <typename Record>
std::vector<Record> gather(Communicator& control, const Record& mine) {
  Stream stream;
  std::vector<Record> all(static_cast<size_t>(control.size()));
  control.all_gather({reinterpret_cast<const std::byte*>(&mine), sizeof(Record)},
                     {reinterpret_cast<std::byte*>(all.data()), all.size() * sizeof(Record)}, stream);
  return all;
}

}  // namespace

void run_together(Communicator& control, const std::function<void()>& work) {
  const std::vector<Outcome> outcomes = gather(control, attempt(work));
  const auto first = std::find_if(outcomes.begin(), outcomes.end(), [](const Outcome& o) { return o.failed != 0; });
  if (first == outcomes.end()) return;
  // Rank 0 speaks, so only another rank's error needs to say whose it is.
  const auto rank = first - outcomes.begin();
  throw Error((rank == 0 ? "" : "rank " + std::to_string(rank) + ": ") + first->message.data());
}

void require_same_everywhere(Communicator& control, const std::string& what, const std::string& value) {
  using Text = std::array<char, 1024>;
  Text mine{};
  std::strncpy(mine.data(), value.c_str(), mine.size() - 1);
  const std::vector<Text> all = gather(control, mine);
  for (size_t rank = 1; rank < all.size(); ++rank) {
    if (all[rank] == all[0]) continue;
    throw Error("ranks disagree on the " + what + ": rank 0 has " + all[0].data() + ", rank " + std::to_string(rank) + " has " +
                all[rank].data() + "; give every host the same files and flags");
  }
}

}  // namespace skipper
