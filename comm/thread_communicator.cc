#include "comm/thread_communicator.h"

#include <glog/logging.h>

#include <algorithm>
#include <cstring>
#include <numeric>

#include "base/error.h"

namespace skipper {

namespace {

using Contributions = ThreadGroup::Contributions;

void copy_part(std::byte* to, const std::byte* from, size_t num_bytes) {
  if (num_bytes > 0 && to != from) std::memmove(to, from, num_bytes);
}

void check_part_size(const OperationSite& site, size_t expected, size_t actual, size_t source) {
  if (expected == actual) return;
  throw CommError(describe(site) + ": rank " + std::to_string(source) + " gave " + std::to_string(actual) +
                  " bytes where " + std::to_string(expected) + " were expected");
}

int64_t sum_of(Counts counts, size_t num_parts) {
  return std::accumulate(counts.begin(), counts.begin() + static_cast<std::ptrdiff_t>(num_parts), int64_t{0});
}

void check_counts(Counts counts, size_t num_ranks, size_t num_bytes) {
  CHECK_EQ(counts.size(), num_ranks);
  for (const int64_t count : counts) CHECK_GE(count, 0);
  CHECK_LE(sum_of(counts, num_ranks), static_cast<int64_t>(num_bytes));
}

class PendingThreadExchange : public PendingOperation {
 public:
  PendingThreadExchange(std::shared_ptr<ThreadGroup> group, const ThreadGroup::Wait& wait, std::byte* recv,
                        Counts recv_counts)
      : group_(std::move(group)), wait_(wait), recv_(recv), recv_counts_(recv_counts.begin(), recv_counts.end()) {}

  // Peers may still read the send buffer of an operation that is dropped by an exception: the group ends with it.
  ~PendingThreadExchange() override {
    if (!finished_) group_->abort_and_settle(describe(wait_.site) + " was abandoned");
  }

  void finish() override {
    if (finished_) return;
    finished_ = true;  // also when exchange() throws: it has settled the group itself
    group_->exchange(wait_, [this](const Contributions& peers) { copy_my_parts(peers); });
  }

 private:
  void copy_my_parts(const Contributions& peers) {
    const auto rank = static_cast<size_t>(wait_.site.rank);
    std::byte* to = recv_;
    for (size_t source = 0; source < peers.size(); ++source) {
      const std::vector<int64_t>& counts = peers[source].send_counts;
      const auto num_bytes = static_cast<size_t>(counts[rank]);
      check_part_size(wait_.site, static_cast<size_t>(recv_counts_[source]), num_bytes, source);
      copy_part(to, peers[source].send.data + sum_of(counts, rank), num_bytes);
      to += num_bytes;
    }
  }

  std::shared_ptr<ThreadGroup> group_;
  const ThreadGroup::Wait wait_;
  std::byte* const recv_;
  const std::vector<int64_t> recv_counts_;
  bool finished_ = false;
};

}  // namespace

ThreadCommunicator::ThreadCommunicator(std::shared_ptr<ThreadGroup> group, int rank, const CommConfig& config)
    : group_(std::move(group)), rank_(rank), config_(config) {
  CHECK_GE(rank, 0);
  CHECK_LT(rank, group_->size());
}

void ThreadCommunicator::barrier(Stream&) {
  group_->exchange(post("barrier", {}, {}), [](const Contributions&) {});
}

void ThreadCommunicator::broadcast(const Buffer& buffer, int root, Stream&) {
  copy_from_root(post("broadcast", {buffer.data, buffer.num_bytes}, {}), buffer, root);
}

void ThreadCommunicator::idle_broadcast(const Buffer& buffer, int root, std::chrono::milliseconds patience, Stream&) {
  const ThreadGroup::Wait wait = post("idle_broadcast", {buffer.data, buffer.num_bytes}, {});
  ThreadGroup::Wait patient = wait;
  patient.limit = patience;
  group_->await_post_of(root, patient);
  copy_from_root(wait, buffer, root);
}

void ThreadCommunicator::copy_from_root(const ThreadGroup::Wait& wait, const Buffer& buffer, int root) {
  group_->exchange(wait, [&](const Contributions& peers) {
    const ConstBuffer& source = peers[static_cast<size_t>(root)].send;
    check_part_size(wait.site, buffer.num_bytes, source.num_bytes, static_cast<size_t>(root));
    copy_part(buffer.data, source.data, buffer.num_bytes);
  });
}

void ThreadCommunicator::all_gather(const ConstBuffer& send, const Buffer& recv, Stream&) {
  CHECK_EQ(recv.num_bytes, send.num_bytes * static_cast<size_t>(size()));
  const ThreadGroup::Wait wait = post("all_gather", send, {});
  group_->exchange(wait, [&](const Contributions& peers) {
    for (size_t source = 0; source < peers.size(); ++source) {
      check_part_size(wait.site, send.num_bytes, peers[source].send.num_bytes, source);
      copy_part(recv.data + source * send.num_bytes, peers[source].send.data, send.num_bytes);
    }
  });
}

void ThreadCommunicator::all_reduce_sum(std::span<double> values, Stream&) {
  const auto bytes = std::as_bytes(values);
  sums_.assign(values.size(), 0.0);
  const ThreadGroup::Wait wait = post("all_reduce_sum", {bytes.data(), bytes.size()}, {});
  group_->exchange(wait, [&](const Contributions& peers) {
    for (size_t source = 0; source < peers.size(); ++source) {
      check_part_size(wait.site, bytes.size(), peers[source].send.num_bytes, source);
      const auto* terms = reinterpret_cast<const double*>(peers[source].send.data);
      for (size_t i = 0; i < sums_.size(); ++i) sums_[i] += terms[i];
    }
  });
  // Only now: until all ranks have read, `values` is what they read.
  std::copy(sums_.begin(), sums_.end(), values.begin());
}

std::unique_ptr<PendingOperation> ThreadCommunicator::start_all_to_all_v(const ConstBuffer& send, Counts send_counts,
                                                                         const Buffer& recv, Counts recv_counts,
                                                                         Stream&) {
  check_counts(send_counts, static_cast<size_t>(size()), send.num_bytes);
  check_counts(recv_counts, static_cast<size_t>(size()), recv.num_bytes);
  const ThreadGroup::Wait wait = post("all_to_all_v", send, send_counts);
  return std::make_unique<PendingThreadExchange>(group_, wait, recv.data, recv_counts);
}

ThreadGroup::Wait ThreadCommunicator::post(const char* operation, const ConstBuffer& send, Counts send_counts) {
  const ThreadGroup::Wait wait{{rank_, context_, operation}, next_sequence_++, config_.deadline};
  group_->post(wait, {operation, send, {send_counts.begin(), send_counts.end()}});
  return wait;
}

std::vector<std::unique_ptr<Communicator>> make_thread_communicators(int num_ranks, const CommConfig& config) {
  const auto group = std::make_shared<ThreadGroup>(num_ranks);
  std::vector<std::unique_ptr<Communicator>> communicators;
  for (int rank = 0; rank < num_ranks; ++rank) {
    communicators.push_back(std::make_unique<ThreadCommunicator>(group, rank, config));
  }
  return communicators;
}

}  // namespace skipper
