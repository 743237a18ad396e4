#include "cluster/control_channel.h"

#include <glog/logging.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "base/error.h"

namespace skipper {

namespace {

struct FrameHeader {
  uint32_t magic;
  uint32_t version;
  int64_t plan_number;  // counts the plans of a channel: shows a rank that missed one
  int64_t plan_bytes;
};

constexpr uint32_t kMagic = 0x4e504b53;  // "SKPN" in memory; another byte order does not match
constexpr uint32_t kVersion = 1;
constexpr size_t kHeadBytes = ControlChannel::kFrameBytes - sizeof(FrameHeader);

}  // namespace

ControlChannel::ControlChannel(Communicator& control, const ClusterConfig& config)
    : control_(control),
      config_(config),
      frame_(kFrameBytes),
      no_counts_(static_cast<size_t>(control.size()), 0),
      rank_0_counts_(static_cast<size_t>(control.size()), 0) {}

void ControlChannel::broadcast_plan(std::span<const std::byte> plan) {
  CHECK_EQ(control_.rank(), 0);
  if (static_cast<int64_t>(plan.size()) > config_.max_plan_bytes) {
    throw CommError("plan " + std::to_string(num_plans_) + " has " + std::to_string(plan.size()) +
                    " bytes, more than cluster.max_plan_bytes = " + std::to_string(config_.max_plan_bytes));
  }
  const FrameHeader header{kMagic, kVersion, num_plans_++, static_cast<int64_t>(plan.size())};
  const size_t head_bytes = std::min(plan.size(), kHeadBytes);
  std::memcpy(frame_.data(), &header, sizeof(header));
  if (head_bytes > 0) std::memcpy(frame_.data() + sizeof(header), plan.data(), head_bytes);
  control_.idle_broadcast({frame_.data(), frame_.size()}, 0, config_.plan_patience, stream_);
  if (plan.size() > kHeadBytes) {
    plan_.assign(plan.begin() + kHeadBytes, plan.end());
    control_.broadcast({plan_.data(), plan_.size()}, 0, stream_);
  }
}

std::span<const std::byte> ControlChannel::receive_plan() {
  CHECK_NE(control_.rank(), 0);
  control_.idle_broadcast({frame_.data(), frame_.size()}, 0, config_.plan_patience, stream_);
  const size_t plan_bytes = check_frame();
  ++num_plans_;
  if (plan_bytes <= kHeadBytes) return std::span(frame_).subspan(sizeof(FrameHeader), plan_bytes);
  plan_.resize(plan_bytes);
  std::memcpy(plan_.data(), frame_.data() + sizeof(FrameHeader), kHeadBytes);
  control_.broadcast({plan_.data() + kHeadBytes, plan_bytes - kHeadBytes}, 0, stream_);
  return plan_;
}

size_t ControlChannel::check_frame() const {
  FrameHeader header;
  std::memcpy(&header, frame_.data(), sizeof(header));
  const auto refuse = [&](const std::string& problem) {
    throw CommError("rank " + std::to_string(control_.rank()) + ": malformed plan frame: " + problem +
                    "; start all ranks from the same build");
  };
  if (header.magic != kMagic) refuse("it does not start with Skipper's magic number");
  if (header.version != kVersion) {
    refuse("version " + std::to_string(header.version) + ", expected " + std::to_string(kVersion));
  }
  if (header.plan_number != num_plans_) {
    refuse("plan number " + std::to_string(header.plan_number) + ", expected " + std::to_string(num_plans_));
  }
  if (header.plan_bytes < 0 || header.plan_bytes > config_.max_plan_bytes) {
    refuse(std::to_string(header.plan_bytes) + " bytes, expected 0 to cluster.max_plan_bytes = " +
           std::to_string(config_.max_plan_bytes));
  }
  return static_cast<size_t>(header.plan_bytes);
}

void ControlChannel::scatter(const ConstBuffer& parts, Counts counts, const Buffer& mine) {
  CHECK_EQ(control_.rank(), 0);
  control_.all_to_all_v(parts, counts, mine, rank_0_only(mine.num_bytes), stream_);
}

void ControlChannel::receive_part(const Buffer& mine) {
  CHECK_NE(control_.rank(), 0);
  control_.all_to_all_v({}, no_counts_, mine, rank_0_only(mine.num_bytes), stream_);
}

void ControlChannel::gather_records(const ConstBuffer& mine, Counts counts, const Buffer& all) {
  CHECK_EQ(control_.rank(), 0);
  control_.all_to_all_v(mine, rank_0_only(mine.num_bytes), all, counts, stream_);
}

void ControlChannel::send_record(const ConstBuffer& mine) {
  CHECK_NE(control_.rank(), 0);
  control_.all_to_all_v(mine, rank_0_only(mine.num_bytes), {}, no_counts_, stream_);
}

Counts ControlChannel::rank_0_only(size_t num_bytes) {
  rank_0_counts_.front() = static_cast<int64_t>(num_bytes);
  return rank_0_counts_;
}

}  // namespace skipper
