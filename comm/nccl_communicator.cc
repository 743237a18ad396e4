#include "comm/nccl_communicator.h"

#include <cuda_runtime_api.h>
#include <glog/logging.h>
#include <nccl.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <future>
#include <mutex>
#include <string_view>
#include <thread>
#include <vector>

#include "base/error.h"
#include "comm/operation_site.h"
#include "comm/polling_pause.h"
#include "tensor/cuda/cuda_check.h"

namespace skipper {

namespace {

// The first NCCL that lets several ranks share a GPU, where NCCL_MULTI_RANK_GPU_ENABLE=1 asks for it.
constexpr int kFirstSharingVersion = NCCL_VERSION(2, 30, 0);

cudaStream_t native(const Stream& stream) { return static_cast<cudaStream_t>(stream.native()); }

int nccl_version() {
  int version = 0;
  ncclGetVersion(&version);
  return version;
}

std::string nccl_version_text() {
  const int version = nccl_version();
  return "NCCL " + std::to_string(version / 10000) + "." + std::to_string(version % 10000 / 100) + "." +
         std::to_string(version % 100);
}

bool lets_ranks_share_a_gpu() {
  const char* wish = std::getenv("NCCL_MULTI_RANK_GPU_ENABLE");
  return nccl_version() >= kFirstSharingVersion && wish != nullptr && std::string_view(wish) == "1";
}

std::string error_text(ncclResult_t code, ncclComm_t comm) {
  std::string text = ncclGetErrorString(code);
  const char* detail = ncclGetLastError(comm);
  if (detail != nullptr && *detail != '\0') text += " (" + std::string(detail) + ")";
  std::ranges::replace(text, '\n', ' ');
  return text;
}

void check_start(ncclResult_t code, const OperationSite& site) {
  if (code != ncclSuccess) throw CommError(describe(site) + ": " + error_text(code, nullptr));
}

// What ranks tell one another before they bring NCCL up.
struct GpuRecord {
  std::array<char, 16> uuid{};
  int32_t may_be_shared = 0;
};

std::vector<GpuRecord> gather_gpus(Communicator& control, Device device) {
  cudaDeviceProp properties{};
  CUDA_CHECK(cudaGetDeviceProperties(&properties, device.index));
  GpuRecord own;
  std::memcpy(own.uuid.data(), properties.uuid.bytes, own.uuid.size());
  own.may_be_shared = lets_ranks_share_a_gpu() ? 1 : 0;
  std::vector<GpuRecord> all(static_cast<size_t>(control.size()));
  Stream host;
  control.all_gather({reinterpret_cast<const std::byte*>(&own), sizeof(own)},
                     {reinterpret_cast<std::byte*>(all.data()), all.size() * sizeof(GpuRecord)}, host);
  return all;
}

// NCCL's own message names neither the ranks nor the way out.
void refuse_shared_gpus(const std::vector<GpuRecord>& gpus, const OperationSite& site) {
  for (size_t i = 0; i < gpus.size(); ++i) {
    for (size_t j = i + 1; j < gpus.size(); ++j) {
      if (gpus[i].uuid != gpus[j].uuid || (gpus[i].may_be_shared != 0 && gpus[j].may_be_shared != 0)) continue;
      throw CommError(describe(site) + ": ranks " + std::to_string(i) + " and " + std::to_string(j) + " share a GPU, which " +
                      nccl_version_text() + " was not told to allow; give each rank a GPU of its own, or use NCCL 2.30 or " +
                      "later with NCCL_MULTI_RANK_GPU_ENABLE=1 on all ranks");
    }
  }
}

ncclUniqueId share_unique_id(Communicator& control, const OperationSite& site) {
  ncclUniqueId id{};
  if (control.rank() == 0) check_start(ncclGetUniqueId(&id), site);
  Stream host;
  control.broadcast({reinterpret_cast<std::byte*>(&id), sizeof(id)}, 0, host);
  return id;
}

struct Membership {
  OperationSite site;
  int size = 1;
  Device device;
  ncclUniqueId id{};
};

// One byte from every rank to every other: NCCL connects ranks when they first meet, which may not happen under capture.
void meet_all_ranks(ncclComm_t comm, const Membership& member) {
  Stream stream(member.device);
  Tensor sent = Tensor::zeros({member.size}, DType::kU8, member.device);
  Tensor received = Tensor::zeros({member.size}, DType::kU8, member.device);
  check_start(ncclGroupStart(), member.site);
  for (int peer = 0; peer < member.size; ++peer) {
    if (peer == member.site.rank) continue;
    check_start(ncclSend(sent.bytes() + peer, 1, ncclUint8, peer, comm, native(stream)), member.site);
    check_start(ncclRecv(received.bytes() + peer, 1, ncclUint8, peer, comm, native(stream)), member.site);
  }
  check_start(ncclGroupEnd(), member.site);
  stream.synchronize();
}

ncclComm_t join_and_meet(const Membership& member) {
  CUDA_CHECK(cudaSetDevice(member.device.index));
  ncclComm_t comm = nullptr;
  check_start(ncclCommInitRank(&comm, member.size, member.id, member.site.rank), member.site);
  meet_all_ranks(comm, member);
  return comm;
}

// Joining waits for every rank, however dead, and NCCL has no limit for it: so it happens on a thread that is left behind when
// the deadline passes; the process ends then. NCCL's non-blocking mode would start a thread for every later exchange, too.
ncclComm_t join_within(std::chrono::milliseconds deadline, const Membership& member) {
  std::packaged_task<ncclComm_t()> task([member] { return join_and_meet(member); });
  std::future<ncclComm_t> joined = task.get_future();
  std::thread(std::move(task)).detach();
  if (joined.wait_for(deadline) != std::future_status::ready) throw CommError(deadline_message(member.site, {deadline}, {}));
  return joined.get();
}

}  // namespace

class NcclCommunicator::Group {
 public:
  Group(Communicator& control, Device device, const CommConfig& config);
  ~Group();

  int rank() const { return rank_; }
  int size() const { return size_; }
  Device device() const { return device_; }
  ncclComm_t comm() const { return comm_; }
  bool is_alone() const { return size_ == 1; }
  void set_context(const OperationContext& context) { context_ = context; }
  void abort(const std::string& reason);

  // Begins an operation: throws CommError when the group was aborted or has failed.
  OperationSite enter(const char* operation);
  void check(ncclResult_t code, const OperationSite& site);
  void await(const Stream& stream, const OperationSite& site);

 private:
  void check_health(const OperationSite& site);
  [[noreturn]] void fail(const std::string& message);
  void throw_if_aborted(const OperationSite& site);

  const int rank_;
  const int size_;
  const Device device_;
  const CommConfig config_;
  OperationContext context_;
  ncclComm_t comm_ = nullptr;  // null in a group of one, and once the group is broken

  std::atomic<bool> aborted_{false};
  std::mutex mutex_;
  std::string abort_reason_;  // guarded by mutex_
};

NcclCommunicator::Group::Group(Communicator& control, Device device, const CommConfig& config)
    : rank_(control.rank()), size_(control.size()), device_(device), config_(config) {
  CUDA_CHECK(cudaSetDevice(device.index));
  if (is_alone()) return;
  const OperationSite site{rank_, {}, "joining NCCL"};
  refuse_shared_gpus(gather_gpus(control, device), site);
  comm_ = join_within(config.deadline, {site, size_, device, share_unique_id(control, site)});
}

NcclCommunicator::Group::~Group() {
  if (comm_ == nullptr) return;
  // An orderly end waits for the other ranks, which an error may have stopped from coming.
  if (std::uncaught_exceptions() > 0 || aborted_.load(std::memory_order_acquire)) {
    ncclCommAbort(comm_);
  } else {
    ncclCommDestroy(comm_);
  }
}

void NcclCommunicator::Group::abort(const std::string& reason) {
  const std::lock_guard lock(mutex_);
  if (aborted_.load(std::memory_order_relaxed)) return;
  abort_reason_ = reason;
  aborted_.store(true, std::memory_order_release);
}

OperationSite NcclCommunicator::Group::enter(const char* operation) {
  const OperationSite site{rank_, context_, operation};
  throw_if_aborted(site);
  return site;
}

void NcclCommunicator::Group::check(ncclResult_t code, const OperationSite& site) {
  if (code != ncclSuccess && code != ncclInProgress) fail(describe(site) + ": " + error_text(code, comm_));
}

void NcclCommunicator::Group::await(const Stream& stream, const OperationSite& site) {
  PollingPause pause = PollingPause::for_device();
  for (cudaError_t status; (status = cudaStreamQuery(native(stream))) != cudaSuccess; pause.rest()) {
    if (status != cudaErrorNotReady) fail(describe(site) + ": " + cudaGetErrorString(status));
    check_health(site);
    if (pause.waited() > config_.deadline) fail(deadline_message(site, {config_.deadline}, {}));
  }
}

void NcclCommunicator::Group::check_health(const OperationSite& site) {
  throw_if_aborted(site);
  ncclResult_t state = ncclSuccess;
  check(ncclCommGetAsyncError(comm_, &state), site);
  check(state, site);
}

void NcclCommunicator::Group::throw_if_aborted(const OperationSite& site) {
  if (!aborted_.load(std::memory_order_acquire)) return;
  std::string reason;
  {
    const std::lock_guard lock(mutex_);
    reason = abort_reason_;
  }
  fail(abort_message(site, reason));
}

// Aborting ends NCCL's kernels, which would wait for the other ranks for ever and keep the stream from draining.
void NcclCommunicator::Group::fail(const std::string& message) {
  if (comm_ != nullptr) ncclCommAbort(comm_);
  comm_ = nullptr;
  abort(message);
  throw CommError(message);
}

NcclCommunicator::NcclCommunicator(Communicator& control, Device device, const CommConfig& config)
    : group_(std::make_unique<Group>(control, device, config)) {}

NcclCommunicator::~NcclCommunicator() = default;

int NcclCommunicator::rank() const { return group_->rank(); }
int NcclCommunicator::size() const { return group_->size(); }
Device NcclCommunicator::device() const { return group_->device(); }
void NcclCommunicator::set_context(const OperationContext& context) { group_->set_context(context); }
void NcclCommunicator::abort(const std::string& reason) { group_->abort(reason); }

void NcclCommunicator::exchange(std::span<const PeerTransfer> transfers, Stream& stream) {
  const OperationSite site = group_->enter("exchange");
  for (const PeerTransfer& own : transfers) {
    if (own.peer != rank() || own.send.num_bytes == 0) continue;
    CHECK_EQ(own.send.num_bytes, own.receive.num_bytes);
    copy_bytes({own.send.data, device(), own.receive.data, device(), own.send.num_bytes}, stream);
  }
  if (group_->is_alone()) return;
  group_->check(ncclGroupStart(), site);
  for (const auto& [peer, send, receive] : transfers) {
    if (peer == rank()) continue;
    if (send.num_bytes > 0) {
      group_->check(ncclSend(send.data, send.num_bytes, ncclUint8, peer, group_->comm(), native(stream)), site);
    }
    if (receive.num_bytes > 0) {
      group_->check(ncclRecv(receive.data, receive.num_bytes, ncclUint8, peer, group_->comm(), native(stream)), site);
    }
  }
  group_->check(ncclGroupEnd(), site);
}

void NcclCommunicator::all_gather(const Tensor& own, Tensor& gathered, Stream& stream) {
  CHECK_EQ(gathered.num_bytes(), own.num_bytes() * static_cast<size_t>(size()));
  const OperationSite site = group_->enter("all_gather");
  if (group_->is_alone()) {
    copy_bytes({own.bytes(), own.device(), gathered.bytes(), gathered.device(), own.num_bytes()}, stream);
    return;
  }
  group_->check(ncclAllGather(own.bytes(), gathered.bytes(), own.num_bytes(), ncclUint8, group_->comm(), native(stream)), site);
}

void NcclCommunicator::all_reduce_sum(Tensor& values, Stream& stream) {
  const OperationSite site = group_->enter("all_reduce_sum");
  if (group_->is_alone()) return;
  const auto count = static_cast<size_t>(values.num_elements());
  float* data = values.data<float>();
  group_->check(ncclAllReduce(data, data, count, ncclFloat, ncclSum, group_->comm(), native(stream)), site);
}

void NcclCommunicator::synchronize(Stream& stream) {
  const OperationSite site = group_->enter("synchronize");
  if (group_->is_alone()) {
    stream.synchronize();
    return;
  }
  group_->await(stream, site);
}

}  // namespace skipper
