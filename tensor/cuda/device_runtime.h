// The CUDA bodies of tensor/device_runtime.h; only device_runtime.cc includes this. Declarations need no CUDA header.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

namespace skipper::cuda {

int num_gpus();
std::string library_versions();
std::shared_ptr<std::byte> allocate(size_t num_bytes, int device_index);
void fill_zero(std::byte* data, size_t num_bytes);
void* create_stream(int device_index);
void destroy_stream(void* stream);
void synchronize_stream(void* stream);
void copy_async(const std::byte* source, std::byte* destination, size_t num_bytes, void* stream);

}  // namespace skipper::cuda
