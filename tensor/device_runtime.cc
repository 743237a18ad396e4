#include "tensor/device_runtime.h"

#include <glog/logging.h>
#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <string>

#include "base/build_config.h"
#include "base/error.h"
#include "tensor/cuda/device_runtime.h"

namespace skipper {
namespace {

constexpr size_t kHostAlignment = 64;
// Large buffers ask for huge pages: weights are read once per step, and with small pages address translation costs bandwidth.
constexpr size_t kHugePageBytes = size_t{2} << 20;
constexpr size_t kLargeBuffer = 2 * kHugePageBytes;

thread_local size_t host_bytes_given = 0;

std::shared_ptr<std::byte> allocate_host(size_t num_bytes) {
  const bool is_large = num_bytes >= kLargeBuffer;
  const size_t alignment = is_large ? kHugePageBytes : kHostAlignment;
  const size_t rounded = (num_bytes / alignment + 1) * alignment;  // aligned_alloc wants a multiple, and more than nothing
  void* memory = std::aligned_alloc(alignment, rounded);
  if (memory == nullptr) {
    throw DeviceError("out of host memory allocating " + std::to_string(num_bytes) + " bytes; lower the budgets or add ranks");
  }
  // A wish that the system may not grant. Whole huge pages only, so that a buffer never takes more than its size.
  if (is_large) (void)madvise(memory, num_bytes / kHugePageBytes * kHugePageBytes, MADV_HUGEPAGE);
  host_bytes_given += num_bytes;
  return {static_cast<std::byte*>(memory), [](std::byte* p) { std::free(p); }};
}

bool is_cuda(Device device) { return device.kind == DeviceKind::kCuda; }

}  // namespace

int num_gpus() {
  if constexpr (kBuiltWithCuda) return cuda::num_gpus();
  return 0;
}

std::string backend_versions() {
  if constexpr (kBuiltWithCuda) return "CPU, " + cuda::library_versions();
  return "CPU";
}

std::shared_ptr<std::byte> allocate(size_t num_bytes, Device device) {
  if constexpr (kBuiltWithCuda) {
    if (is_cuda(device)) return cuda::allocate(num_bytes, device.index);
  }
  CHECK(!is_cuda(device)) << "GPU memory asked of a build without CUDA";
  return allocate_host(num_bytes);
}

size_t allocated_host_bytes() { return host_bytes_given; }

void fill_zero(std::byte* data, size_t num_bytes, Device device) {
  if constexpr (kBuiltWithCuda) {
    if (is_cuda(device)) return cuda::fill_zero(data, num_bytes);
  }
  std::memset(data, 0, num_bytes);
}

Stream::Stream(ThreadPool& workers) : workers_(&workers) {}

Stream::Stream(Device device) : device_(device) {
  if constexpr (kBuiltWithCuda) {
    if (is_cuda(device)) native_ = cuda::create_stream(device.index);
  }
}

Stream::~Stream() {
  if constexpr (kBuiltWithCuda) {
    if (native_ != nullptr) cuda::destroy_stream(native_);
  }
}

void Stream::synchronize() {
  if constexpr (kBuiltWithCuda) {
    if (native_ != nullptr) cuda::synchronize_stream(native_);
  }
}

void copy_bytes(const CopyRange& range, Stream& stream) {
  if constexpr (kBuiltWithCuda) {
    if (is_cuda(range.source_device) || is_cuda(range.destination_device)) {
      return cuda::copy_async(range.source, range.destination, range.num_bytes, stream.native());
    }
  }
  (void)stream;
  if (range.num_bytes > 0) std::memcpy(range.destination, range.source, range.num_bytes);
}

}  // namespace skipper
