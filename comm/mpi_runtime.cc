#include "comm/mpi_runtime.h"

#include <glog/logging.h>
#include <mpi.h>
#include <unistd.h>

#include <cstdlib>
#include <exception>
#include <thread>

#include "comm/mpi_check.h"

namespace skipper {

namespace {

// Time for the failing rank to print its error line and end by itself.
constexpr std::chrono::milliseconds kAbortGrace{500};
// Should MPI_Abort itself hang, SIGALRM ends the process this much later.
constexpr unsigned kAbortHangSeconds = 5;

// Open MPI asks the receiver before it sends more than 64 KiB over TCP, and on a slow network the answer queues behind the rows
// that go the other way. Unasked, a rank that is late keeps one message of every other rank in memory. A value set outside stays.
void send_rows_over_tcp_unasked() { ::setenv("OMPI_MCA_btl_tcp_eager_limit", "4194304", /*overwrite=*/0); }

// Runs on a thread of its own: the engine thread may be stuck in a system call.
void end_the_job_after_grace(const std::string& reason) {
  std::this_thread::sleep_for(kAbortGrace);
  LOG(ERROR) << reason;
  ::alarm(kAbortHangSeconds);
  MPI_Abort(MPI_COMM_WORLD, 1);
}

}  // namespace

bool MpiRuntime::launched() {
  // mpirun sets the first, srun --mpi=pmix the second.
  return std::getenv("OMPI_COMM_WORLD_SIZE") != nullptr || std::getenv("PMIX_RANK") != nullptr;
}

std::string MpiRuntime::library_version() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING];
  int length = 0;
  MPI_CHECK(MPI_Get_library_version(text, &length));
  const std::string version(text, static_cast<size_t>(length));
  return version.substr(0, version.find_first_of(",\n"));
}

MpiRuntime::MpiRuntime() : exceptions_at_start_(std::uncaught_exceptions()) {
  send_rows_over_tcp_unasked();
  int provided = MPI_THREAD_SINGLE;
  MPI_CHECK(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided));
  if (provided < MPI_THREAD_FUNNELED) {
    throw CommError("MPI was built without threads; install an MPI with MPI_THREAD_FUNNELED");
  }
  MPI_CHECK(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN));
  find_out_who_we_are();
}

void MpiRuntime::find_out_who_we_are() {
  MPI_CHECK(MPI_Comm_rank(MPI_COMM_WORLD, &rank_));
  MPI_CHECK(MPI_Comm_size(MPI_COMM_WORLD, &size_));

  MPI_Comm node = MPI_COMM_NULL;
  MPI_CHECK(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, rank_, MPI_INFO_NULL, &node));
  MPI_CHECK(MPI_Comm_rank(node, &node_rank_));
  MPI_CHECK(MPI_Comm_size(node, &node_size_));
  MPI_CHECK(MPI_Comm_free(&node));

  char name[MPI_MAX_PROCESSOR_NAME];
  int length = 0;
  MPI_CHECK(MPI_Get_processor_name(name, &length));
  host_name_.assign(name, static_cast<size_t>(length));
}

MpiRuntime::~MpiRuntime() {
  const bool unwinding = std::uncaught_exceptions() > exceptions_at_start_;
  if (!broken() && !unwinding) MPI_Finalize();
}

void MpiRuntime::abort(const std::string& reason) {
  {
    const std::lock_guard lock(mutex_);
    if (aborted()) return;
    abort_reason_ = reason;
    aborted_.store(true, std::memory_order_release);
  }
  std::thread(end_the_job_after_grace, "rank " + std::to_string(rank_) + " ends the group: " + reason).detach();
}

std::string MpiRuntime::abort_reason() const {
  const std::lock_guard lock(mutex_);
  return abort_reason_;
}

}  // namespace skipper
