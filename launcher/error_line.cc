#include "launcher/error_line.h"

#include <csignal>
#include <ctime>
#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

namespace skipper {
namespace {

// Within the half second after which an aborted group is ended by force.
constexpr int kPauseMsPerRank = 60;
constexpr int kLongestPauseMs = 400;

int launched_rank() {
  const char* rank = std::getenv("OMPI_COMM_WORLD_RANK");
  if (rank == nullptr) rank = std::getenv("PMIX_RANK");
  return rank == nullptr ? 0 : std::atoi(rank);
}

}  // namespace

void print_error(const std::string& message) {
  const std::string line = "skipper: error: " + message + "\n";
  const ssize_t written = write(STDERR_FILENO, line.data(), line.size());
  (void)written;  // there is nobody left to tell
}

bool is_first_rank() { return launched_rank() == 0; }

bool lower_rank_has_ended_the_group() {
  if (is_first_rank()) return false;
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGCONT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  const int pause_ms = std::min(kPauseMsPerRank * launched_rank(), kLongestPauseMs);
  const timespec pause{0, pause_ms * 1000000L};
  return sigtimedwait(&signals, nullptr, &pause) == SIGCONT;
}

}  // namespace skipper
