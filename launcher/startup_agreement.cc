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
  enum class Kind : uint8_t { kSuccess, kError, kWrongUse };
  Kind kind = Kind::kSuccess;
  std::array<char, 1023> message{};

  void fail(Kind how, const char* why) {
    kind = how;
    std::strncpy(message.data(), why, message.size() - 1);
  }
};

Outcome attempt(const std::function<void()>& work) {
  Outcome outcome;
  try {
    work();
  } catch (const CommError&) {
    // The group itself is broken; there is nobody left to agree with.
    throw;
  } catch (const UsageError& e) {
    outcome.fail(Outcome::Kind::kWrongUse, e.what());
  } catch (const std::exception& e) {
    outcome.fail(Outcome::Kind::kError, e.what());
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

// The part of `text` where it first differs from `other`, short enough for an error line.
std::string around_difference(const std::string& text, const std::string& other) {
  constexpr size_t kBefore = 40;
  constexpr size_t kLength = 80;
  const auto differing = std::mismatch(text.begin(), text.end(), other.begin(), other.end()).first;
  const auto position = static_cast<size_t>(differing - text.begin());
  const std::string part = text.substr(position > kBefore ? position - kBefore : 0, kLength);
  return part.substr(0, part.find_last_not_of(' ') + 1);  // without the padding
}

}  // namespace

void run_together(Communicator& control, const std::function<void()>& work) {
  const std::vector<Outcome> outcomes = gather(control, attempt(work));
  const auto first = std::ranges::find_if(outcomes, [](const Outcome& o) { return o.kind != Outcome::Kind::kSuccess; });
  if (first == outcomes.end()) return;
  // Rank 0 speaks, so only another rank's error needs to say whose it is.
  const auto rank = first - outcomes.begin();
  const std::string message = (rank == 0 ? "" : "rank " + std::to_string(rank) + ": ") + std::string(first->message.data());
  if (first->kind == Outcome::Kind::kWrongUse) throw UsageError(message);
  throw Error(message);
}

void require_same_everywhere(Communicator& control, const std::string& what, const std::string& value) {
  const std::vector<uint64_t> sizes = gather(control, static_cast<uint64_t>(value.size()));
  const uint64_t longest = *std::max_element(sizes.begin(), sizes.end());
  std::string padded = value;
  padded.resize(longest, ' ');
  std::string all(longest * sizes.size(), ' ');
  Stream stream;
  control.all_gather({reinterpret_cast<const std::byte*>(padded.data()), padded.size()},
                     {reinterpret_cast<std::byte*>(all.data()), all.size()}, stream);
  const std::string first = all.substr(0, longest);
  for (size_t rank = 1; rank < sizes.size(); ++rank) {
    const std::string other = all.substr(rank * longest, longest);
    if (other == first && sizes[rank] == sizes[0]) continue;
    throw Error("ranks disagree on the " + what + ": rank 0 has " + around_difference(first, other) + ", rank " +
                std::to_string(rank) + " has " + around_difference(other, first) +
                "; give every host the same files and flags");
  }
}

}  // namespace skipper
