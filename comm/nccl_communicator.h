// Ranks that exchange GPU memory over NCCL, in stream order.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "comm/comm_config.h"
#include "comm/communicator.h"
#include "tensor/device.h"
#include "tensor/device_runtime.h"
#include "tensor/tensor.h"

namespace skipper {

// What goes to and comes from one rank, in GPU memory; either part may be empty. Several transfers with one rank are matched
// with its own in their order.
struct PeerTransfer {
  int peer = 0;
  ConstBuffer send;
  Buffer receive;
};

// Not a Communicator: its operations are queued on the stream and return at once, so that they can be captured into CUDA
// graphs; graphs must be destroyed before it. Whether they complete shows in synchronize(), which looks at NCCL's errors and at
// the deadline of CommConfig meanwhile. All ranks make the same calls in the same order. Every failure throws CommError naming
// rank, step, layer, phase and operation; the group is broken from then on. Engine thread only, except abort().
class NcclCommunicator {
 public:
  // Collective over the ranks of `control`, which carries what NCCL needs to begin. Returns when every rank has exchanged
  // bytes with every other. Throws CommError, also when ranks share a GPU and this NCCL does not let them.
  NcclCommunicator(Communicator& control, Device device, const CommConfig& config);
  ~NcclCommunicator();
  NcclCommunicator(const NcclCommunicator&) = delete;
  NcclCommunicator& operator=(const NcclCommunicator&) = delete;

  int rank() const;
  int size() const;
  Device device() const;
  // Set by the step loop; read only when an error is reported.
  void set_context(const OperationContext& context);

  // Sends and receives all parts at once, those of the rank itself by a copy. An empty part is no message, so its other side
  // must be empty as well.
  void exchange(std::span<const PeerTransfer> transfers, Stream& stream);
  // gathered [size(), ...] = the tensors `own` of all ranks.
  void all_gather(const Tensor& own, Tensor& gathered, Stream& stream);
  // Element by element over f32, on all ranks the same bits, in an order that NCCL chooses.
  void all_reduce_sum(Tensor& values, Stream& stream);

  // Blocks until all work queued on the stream so far is done.
  void synchronize(Stream& stream);

  // Makes this rank's current and later operations fail with CommError(reason). Thread-safe.
  void abort(const std::string& reason);

 private:
  class Group;
  std::unique_ptr<Group> group_;
};

}  // namespace skipper
