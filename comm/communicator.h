// The one interface between ranks: collectives with a deadline, over threads, MPI or NCCL.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "tensor/device_runtime.h"

namespace skipper {

struct ConstBuffer {
  const std::byte* data = nullptr;
  size_t num_bytes = 0;
};

struct Buffer {
  std::byte* data = nullptr;
  size_t num_bytes = 0;
};

// Bytes to or from each rank, rank 0 first; the parts lie one after the other in the buffer.
using Counts = std::span<const int64_t>;

// What a rank is doing, for the message of a deadline that passes: "rank 2: step 17, layer 3, dispatch: ...".
struct OperationContext {
  int64_t step = -1;   // -1 = not inside a step
  int layer = -1;      // -1 = not inside a layer
  const char* phase = "";  // a string literal: "plan", "dispatch", "combine", "result"
};

// An operation under way. finish() must be called before its buffers are read or reused.
class PendingOperation {
 public:
  virtual ~PendingOperation() = default;
  // Blocks until the operation is complete on this rank. Throws CommError as the operation itself would.
  virtual void finish() = 0;
};

// A group of ranks. All ranks call the same operations in the same order; a rank with nothing to say passes zero bytes.
// With one rank every operation is the identity. Each operation completes before the deadline of CommConfig or throws
// CommError naming rank, step, layer, phase and operation. Engine thread only, except abort().
class Communicator {
 public:
  virtual ~Communicator() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;
  // Set by the step loop; read only when an error is reported.
  virtual void set_context(const OperationContext& context) = 0;

  virtual void barrier(Stream& stream) = 0;
  // `buffer` holds the root's bytes on every rank afterwards; the same size everywhere.
  virtual void broadcast(const Buffer& buffer, int root, Stream& stream) = 0;
  // As broadcast, but may wait for the root longer than the deadline, sleeping between looks: how an idle rank waits for
  // work without burning a core. Throws CommError after `patience`.
  virtual void idle_broadcast(const Buffer& buffer, int root, std::chrono::milliseconds patience, Stream& stream) = 0;
  // recv = the send buffers of all ranks in rank order; the same send size everywhere.
  virtual void all_gather(const ConstBuffer& send, const Buffer& recv, Stream& stream) = 0;
  // Sum over ranks, element by element, in rank order on every rank (the same bits everywhere).
  virtual void all_reduce_sum(std::span<double> values, Stream& stream) = 0;
  // Sends part r of `send` to rank r and receives part r of `recv` from it; parts of different sizes, also empty.
  // Counts need to live only until the call returns; buffers until finish().
  virtual std::unique_ptr<PendingOperation> start_all_to_all_v(const ConstBuffer& send, Counts send_counts,
                                                               const Buffer& recv, Counts recv_counts,
                                                               Stream& stream) = 0;
  void all_to_all_v(const ConstBuffer& send, Counts send_counts, const Buffer& recv, Counts recv_counts,
                    Stream& stream) {
    start_all_to_all_v(send, send_counts, recv, recv_counts, stream)->finish();
  }

  // Makes every rank's current and later operations fail with CommError(reason). Thread-safe; callable from any rank.
  virtual void abort(const std::string& reason) = 0;
};

}  // namespace skipper
