// Memory, streams and events of a device: the host version here, the CUDA version in tensor/cuda/device_runtime.cc.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "base/thread_pool.h"
#include "tensor/device.h"

namespace skipper {

// Number of GPUs this process can use; 0 in a CPU build, without a driver, or without a GPU. Never throws.
int num_gpus();

// The libraries of this build by name and version: "CPU", or "CPU, CUDA 13.0, cuBLAS 13.1.0, NCCL 2.28.9".
std::string backend_versions();

// Aligned to 64 bytes on the host, to the driver's alignment on a GPU. `num_bytes` may be 0: the pointer is still valid to
// free and not null. Throws DeviceError naming the size and the device.
std::shared_ptr<std::byte> allocate(size_t num_bytes, Device device);

// Bytes of host memory that allocate() has given this thread since it began: what making an object takes is the difference.
size_t allocated_host_bytes();

void fill_zero(std::byte* data, size_t num_bytes, Device device);

// An ordered queue of work on one device. On the host every call has finished when it returns, so the stream has no state but
// the threads that its kernels run on. Every kernel and every collective takes the stream it belongs to. Engine thread only.
class Stream {
 public:
  explicit Stream(Device device = Device::host());
  // A stream of the host whose kernels share `workers`, which outlive it.
  explicit Stream(ThreadPool& workers);
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  Device device() const { return device_; }
  // Blocks until all work queued so far is done. Throws DeviceError when some of it failed.
  void synchronize();
  // The CUDA stream as an opaque pointer; null on the host.
  void* native() const { return native_; }
  // Of host kernels; the caller alone unless the stream was given a pool.
  ThreadPool& workers() const { return *workers_; }

 private:
  Device device_;
  void* native_ = nullptr;
  ThreadPool* workers_ = &ThreadPool::caller_only();
};

struct CopyRange {
  const std::byte* source = nullptr;
  Device source_device;
  std::byte* destination = nullptr;
  Device destination_device;
  size_t num_bytes = 0;
};

// Copies in stream order; between two host buffers it is a memcpy.
void copy_bytes(const CopyRange& range, Stream& stream);

}  // namespace skipper
