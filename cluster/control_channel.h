// How rank 0 steers the others: one plan to all, a part to each, a record from each, per step.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "cluster/cluster_config.h"
#include "comm/communicator.h"

namespace skipper {

// Plans are bytes to this class. Every rank makes the same exchanges in the same order:
//
//   rank 0                                   the others
//   broadcast_plan(plan)                     receive_plan()
//   scatter(parts, counts, mine)             receive_part(mine)
//   gather_records(mine, counts, all)        send_record(mine)
//
// Sizes of parts and records follow from the plan on both sides. A plan that fits the head of the first frame costs one
// small message per rank. All throw CommError. Engine thread only.
class ControlChannel {
 public:
  // The first message of a plan: header and as much of the plan as fits. 2 KiB is under the size up to which MPI transports
  // send without asking the receiver, so an idle rank wakes with its first look.
  static constexpr size_t kFrameBytes = 2048;

  ControlChannel(Communicator& control, const ClusterConfig& config);

  // Rank 0 only.
  void broadcast_plan(std::span<const std::byte> plan);
  // Not on rank 0. Waits for the next plan without burning a core, at most ClusterConfig::plan_patience. The bytes are valid
  // until the next call.
  std::span<const std::byte> receive_plan();

  // Rank 0 only. Part r of `parts` goes to rank r; rank 0's own is copied to `mine`.
  void scatter(const ConstBuffer& parts, Counts counts, const Buffer& mine);
  void receive_part(const Buffer& mine);

  // Rank 0 only. The records of all ranks in rank order, counts[r] bytes from rank r, rank 0's own copied from `mine`.
  void gather_records(const ConstBuffer& mine, Counts counts, const Buffer& all);
  void send_record(const ConstBuffer& mine);

 private:
  // Counts that are zero for every rank but 0.
  Counts rank_0_only(size_t num_bytes);
  // The size of the plan whose first frame has arrived.
  size_t check_frame() const;

  Communicator& control_;
  const ClusterConfig config_;
  Stream stream_;
  int64_t num_plans_ = 0;
  std::vector<std::byte> frame_;
  std::vector<std::byte> plan_;
  std::vector<int64_t> no_counts_;
  std::vector<int64_t> rank_0_counts_;
};

}  // namespace skipper
