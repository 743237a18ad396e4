#include "comm/mpi_communicator.h"

#include <glog/logging.h>
#include <mpi.h>

#include <climits>
#include <cstring>
#include <exception>
#include <vector>

#include "comm/mpi_check.h"
#include "comm/operation_site.h"
#include "comm/polling_pause.h"

namespace skipper {

using std::chrono::milliseconds;

class MpiCommunicator::Group {
 public:
  Group(MpiRuntime& runtime, const CommConfig& config, const std::string& name);
  ~Group();

  MpiRuntime& runtime() const { return runtime_; }
  MPI_Comm handle() const { return handle_; }
  milliseconds deadline() const { return config_.deadline; }
  int num_tags() const { return num_tags_; }
  void set_context(const OperationContext& context) { context_ = context; }
  // Begins an operation: throws CommError when the group was aborted.
  OperationSite enter(const char* operation);

  // MPI counts are ints. Fails the group for more bytes.
  int mpi_count(int64_t num_bytes, const OperationSite& site);
  void check(int code, const OperationSite& site);
  void await(MPI_Request request, const OperationSite& site);
  // Waits for all; afterwards statuses[i] belongs to requests[i].
  struct Requests {
    std::vector<MPI_Request>& requests;
    std::vector<MPI_Status>& statuses;
    std::span<const int> sources;  // of the first requests, which receive
  };
  void await_all(const Requests& all, const OperationSite& site, PollingPause pause, const OperationLimit& limit);
  // The group is broken from here on.
  [[noreturn]] void fail(const std::string& message);

 private:
  bool all_done(const Requests& all, const OperationSite& site);
  static std::vector<int> silent_ranks(const Requests& all);

  MpiRuntime& runtime_;
  const CommConfig config_;
  MPI_Comm handle_ = MPI_COMM_NULL;
  int num_tags_ = 0;
  OperationContext context_;
  std::vector<MPI_Request> one_request_ = std::vector<MPI_Request>(1);
  std::vector<MPI_Status> one_status_;
};

MpiCommunicator::Group::Group(MpiRuntime& runtime, const CommConfig& config, const std::string& name)
    : runtime_(runtime), config_(config) {
  const OperationSite site = enter("comm_idup");
  MPI_Request request = MPI_REQUEST_NULL;
  check(MPI_Comm_idup(MPI_COMM_WORLD, &handle_, &request), site);
  await(request, site);
  check(MPI_Comm_set_errhandler(handle_, MPI_ERRORS_RETURN), site);
  check(MPI_Comm_set_name(handle_, name.c_str()), site);
  int* largest_tag = nullptr;
  int found = 0;
  check(MPI_Comm_get_attr(handle_, MPI_TAG_UB, &largest_tag, &found), site);
  num_tags_ = found ? *largest_tag : 32767;  // the least that the standard promises
}

MpiCommunicator::Group::~Group() {
  // Freeing is collective: only while all ranks are well.
  if (!runtime_.broken() && std::uncaught_exceptions() == 0) MPI_Comm_free(&handle_);
}

OperationSite MpiCommunicator::Group::enter(const char* operation) {
  const OperationSite site{runtime_.rank(), context_, operation};
  if (runtime_.aborted()) fail(abort_message(site, runtime_.abort_reason()));
  return site;
}

int MpiCommunicator::Group::mpi_count(int64_t num_bytes, const OperationSite& site) {
  if (num_bytes <= INT_MAX) return static_cast<int>(num_bytes);
  fail(describe(site) + ": " + std::to_string(num_bytes) + " bytes for one rank, more than the limit of " +
       std::to_string(INT_MAX) + "; lower the tokens per step");
}

void MpiCommunicator::Group::check(int code, const OperationSite& site) {
  if (code != MPI_SUCCESS) fail(describe(site) + ": " + mpi_error_text(code));
}

void MpiCommunicator::Group::await(MPI_Request request, const OperationSite& site) {
  one_request_.front() = request;
  await_all({one_request_, one_status_, {}}, site, PollingPause::within_step(), {config_.deadline});
}

void MpiCommunicator::Group::await_all(const Requests& all, const OperationSite& site, PollingPause pause,
                                       const OperationLimit& limit) {
  all.statuses.resize(all.requests.size());
  // Twice a look: Open MPI's Testall reads the requests before it moves messages, so one call shows the news of the last.
  while (!all_done(all, site) && !all_done(all, site)) {
    if (runtime_.aborted()) fail(abort_message(site, runtime_.abort_reason()));
    if (pause.waited() > limit.time) fail(deadline_message(site, limit, silent_ranks(all)));
    pause.rest();
  }
}

bool MpiCommunicator::Group::all_done(const Requests& all, const OperationSite& site) {
  int done = 0;
  int code = MPI_Testall(static_cast<int>(all.requests.size()), all.requests.data(), &done, all.statuses.data());
  if (code == MPI_ERR_IN_STATUS) {
    for (const MPI_Status& status : all.statuses) {
      if (status.MPI_ERROR != MPI_SUCCESS && status.MPI_ERROR != MPI_ERR_PENDING) code = status.MPI_ERROR;
    }
  }
  check(code, site);
  return done != 0;
}

// The ranks whose messages have not come.
std::vector<int> MpiCommunicator::Group::silent_ranks(const Requests& all) {
  std::vector<int> ranks;
  for (size_t i = 0; i < all.sources.size(); ++i) {
    int done = 0;
    MPI_Test(&all.requests[i], &done, MPI_STATUS_IGNORE);
    if (done == 0) ranks.push_back(all.sources[i]);
  }
  return ranks;
}

void MpiCommunicator::Group::fail(const std::string& message) {
  runtime_.mark_broken();
  throw CommError(message);
}

// Reused, so that an operation allocates nothing once its like has run.
class MpiCommunicator::Exchange {
 public:
  explicit Exchange(Group& group) : group_(group) {}

  bool in_use() const { return in_use_; }
  void begin(const OperationSite& site, uint64_t number) {
    in_use_ = true;
    site_ = site;
    tag_ = static_cast<int>(number % static_cast<uint64_t>(group_.num_tags()));
    requests_.clear();
    expected_.clear();
    sources_.clear();
  }

  // Receives must be added before sends: check_sizes() relies on it, and early receives spare MPI a copy.
  void receive(const Buffer& part, int source) {
    if (part.num_bytes == 0) return;
    const int count = group_.mpi_count(static_cast<int64_t>(part.num_bytes), site_);
    MPI_Request& request = requests_.emplace_back(MPI_REQUEST_NULL);
    expected_.push_back(count);
    sources_.push_back(source);
    group_.check(MPI_Irecv(part.data, count, MPI_BYTE, source, tag_, group_.handle(), &request), site_);
  }
  void send(const ConstBuffer& part, int destination) {
    if (part.num_bytes == 0) return;
    const int count = group_.mpi_count(static_cast<int64_t>(part.num_bytes), site_);
    MPI_Request& request = requests_.emplace_back(MPI_REQUEST_NULL);
    group_.check(MPI_Isend(part.data, count, MPI_BYTE, destination, tag_, group_.handle(), &request), site_);
  }

  void finish(PollingPause pause, const OperationLimit& limit) {
    group_.await_all({requests_, statuses_, sources_}, site_, pause, limit);
    check_sizes();
    in_use_ = false;
  }
  // Leaves the messages to MPI, which may still touch their buffers: nothing can be reused.
  void abandon() { group_.runtime().mark_broken(); }

 private:
  // A message longer than expected is an MPI error; a shorter one is not.
  void check_sizes() {
    for (size_t i = 0; i < expected_.size(); ++i) {
      int received = 0;
      group_.check(MPI_Get_count(&statuses_[i], MPI_BYTE, &received), site_);
      if (received == expected_[i]) continue;
      group_.fail(describe(site_) + ": rank " + std::to_string(statuses_[i].MPI_SOURCE) + " gave " +
                  std::to_string(received) + " bytes where " + std::to_string(expected_[i]) + " were expected");
    }
  }

  Group& group_;
  bool in_use_ = false;
  OperationSite site_;
  int tag_ = 0;
  std::vector<MPI_Request> requests_;  // receives first
  std::vector<int> expected_;          // bytes of each receive
  std::vector<int> sources_;           // rank of each receive
  std::vector<MPI_Status> statuses_;
};

class MpiCommunicator::PendingExchange : public PendingOperation {
 public:
  PendingExchange(Exchange& exchange, milliseconds deadline) : exchange_(exchange), deadline_(deadline) {}
  ~PendingExchange() override {
    if (!finished_) exchange_.abandon();
  }
  void finish() override {
    if (finished_) return;
    exchange_.finish(PollingPause::within_step(), {deadline_});
    finished_ = true;
  }

 private:
  Exchange& exchange_;
  const milliseconds deadline_;
  bool finished_ = false;
};

MpiCommunicator::MpiCommunicator(MpiRuntime& runtime, const CommConfig& config, const std::string& name)
    : group_(std::make_unique<Group>(runtime, config, name)) {}

MpiCommunicator::~MpiCommunicator() = default;

int MpiCommunicator::rank() const { return group_->runtime().rank(); }
int MpiCommunicator::size() const { return group_->runtime().size(); }
void MpiCommunicator::set_context(const OperationContext& context) { group_->set_context(context); }
void MpiCommunicator::abort(const std::string& reason) { group_->runtime().abort(reason); }

void MpiCommunicator::barrier(Stream&) {
  const OperationSite site = group_->enter("barrier");
  MPI_Request request = MPI_REQUEST_NULL;
  group_->check(MPI_Ibarrier(group_->handle(), &request), site);
  group_->await(request, site);
}

void MpiCommunicator::broadcast(const Buffer& buffer, int root, Stream&) {
  const OperationSite site = group_->enter("broadcast");
  const int count = group_->mpi_count(static_cast<int64_t>(buffer.num_bytes), site);
  MPI_Request request = MPI_REQUEST_NULL;
  group_->check(MPI_Ibcast(buffer.data, count, MPI_BYTE, root, group_->handle(), &request), site);
  group_->await(request, site);
}

// One message to every rank rather than MPI_Ibcast: in its tree a rank would sleep until its parent has slept.
void MpiCommunicator::idle_broadcast(const Buffer& buffer, int root, milliseconds patience, Stream&) {
  Exchange& exchange = next_exchange("idle_broadcast");
  if (rank() != root) {
    exchange.receive(buffer, root);
    exchange.finish(PollingPause::idle(), {patience, "it may be dead or overloaded (raise cluster.plan_patience_ms)"});
    return;
  }
  for (int peer = 0; peer < size(); ++peer) {
    if (peer != root) exchange.send({buffer.data, buffer.num_bytes}, peer);
  }
  exchange.finish(PollingPause::within_step(), {group_->deadline()});
}

void MpiCommunicator::all_gather(const ConstBuffer& send, const Buffer& recv, Stream&) {
  CHECK_EQ(recv.num_bytes, send.num_bytes * static_cast<size_t>(size()));
  const OperationSite site = group_->enter("all_gather");
  const int count = group_->mpi_count(static_cast<int64_t>(send.num_bytes), site);
  MPI_Request request = MPI_REQUEST_NULL;
  group_->check(MPI_Iallgather(send.data, count, MPI_BYTE, recv.data, count, MPI_BYTE, group_->handle(), &request), site);
  group_->await(request, site);
}

// Not MPI_Iallreduce: its order of additions depends on the algorithm that MPI chooses.
void MpiCommunicator::all_reduce_sum(std::span<double> values, Stream& stream) {
  const auto bytes = std::as_bytes(values);
  gathered_.resize(values.size() * static_cast<size_t>(size()));
  const auto gathered = std::as_writable_bytes(std::span(gathered_));
  all_gather({bytes.data(), bytes.size()}, {gathered.data(), gathered.size()}, stream);
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = 0.0;
    for (size_t at = i; at < gathered_.size(); at += values.size()) values[i] += gathered_[at];
  }
}

namespace {

// Where each rank's part of a buffer begins.
void part_offsets(Counts counts, size_t num_bytes, std::vector<size_t>& offsets) {
  offsets.clear();
  size_t offset = 0;
  for (const int64_t count : counts) {
    CHECK_GE(count, 0);
    offsets.push_back(offset);
    offset += static_cast<size_t>(count);
  }
  CHECK_LE(offset, num_bytes);
}

}  // namespace

std::unique_ptr<PendingOperation> MpiCommunicator::start_all_to_all_v(const ConstBuffer& send, Counts send_counts,
                                                                      const Buffer& recv, Counts recv_counts, Stream&) {
  const auto num_ranks = static_cast<size_t>(size());
  const auto me = static_cast<size_t>(rank());
  CHECK_EQ(send_counts.size(), num_ranks);
  CHECK_EQ(recv_counts.size(), num_ranks);
  CHECK_EQ(send_counts[me], recv_counts[me]);
  part_offsets(send_counts, send.num_bytes, send_offsets_);
  part_offsets(recv_counts, recv.num_bytes, recv_offsets_);

  Exchange& exchange = next_exchange("all_to_all_v");
  // Every rank begins with its right neighbour, so that not all send to rank 0 first.
  for (size_t distance = 1; distance < num_ranks; ++distance) {
    const size_t source = (me + num_ranks - distance) % num_ranks;
    exchange.receive({recv.data + recv_offsets_[source], static_cast<size_t>(recv_counts[source])},
                     static_cast<int>(source));
  }
  for (size_t distance = 1; distance < num_ranks; ++distance) {
    const size_t destination = (me + distance) % num_ranks;
    exchange.send({send.data + send_offsets_[destination], static_cast<size_t>(send_counts[destination])},
                  static_cast<int>(destination));
  }
  if (send_counts[me] > 0) {
    std::memmove(recv.data + recv_offsets_[me], send.data + send_offsets_[me], static_cast<size_t>(send_counts[me]));
  }
  return std::make_unique<PendingExchange>(exchange, group_->deadline());
}

MpiCommunicator::Exchange& MpiCommunicator::next_exchange(const char* operation) {
  const auto begin = [&](Exchange& exchange) -> Exchange& {
    exchange.begin(group_->enter(operation), num_exchanges_++);
    return exchange;
  };
  for (const auto& exchange : exchanges_) {
    if (!exchange->in_use()) return begin(*exchange);
  }
  exchanges_.push_back(std::make_unique<Exchange>(*group_));
  return begin(*exchanges_.back());
}

}  // namespace skipper
