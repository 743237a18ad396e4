// Writer of a sharded safetensors checkpoint whose tensors are all known beforehand and whose bytes arrive in any order.
//
// Goals: nothing held in memory, several threads at once, a full disk noticed before the first byte of a tensor is made.
// Non-goals: changing files that exist, hiding a half-written directory (the caller writes elsewhere and renames).
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tensor/tensor.h"

namespace skipper {

struct TensorPlan {
  std::string name;
  DType dtype = DType::kF32;
  Shape shape;

  size_t num_bytes() const { return static_cast<size_t>(shape.num_elements()) * size_of(dtype); }
};

// model-0000i-of-0000n.safetensors and model.safetensors.index.json in one directory. Tensors fill shards in the order given. A
// tensor whose size is a multiple of 64 bytes starts on such a multiple of its file: a mapping of it is aligned to vectors.
class SafetensorsWriter {
 public:
  static constexpr size_t kMaxShardBytes = size_t{2} << 30;

  // Creates the files, writes their headers and reserves their space. A larger tensor than `max_shard_bytes` gets a shard of
  // its own. Throws Error naming file and reason.
  SafetensorsWriter(const std::filesystem::path& directory, const std::vector<TensorPlan>& tensors,
                    size_t max_shard_bytes = kMaxShardBytes);
  ~SafetensorsWriter();
  SafetensorsWriter(const SafetensorsWriter&) = delete;
  SafetensorsWriter& operator=(const SafetensorsWriter&) = delete;

  // Bytes of all files, headers included.
  size_t file_bytes() const;

  // A whole tensor, or the rows of its outermost axis that begin at `first_row`; each row once. Thread-safe. Throws Error
  // naming file and reason.
  void write(const std::string& name, const Tensor& tensor, int64_t first_row = 0);

  // When every row was written: flushes the files to the disk and writes the index.
  void finish();

 private:
  class Shard;
  struct Location {
    size_t shard = 0;
    size_t offset = 0;  // in the file
    TensorPlan plan;
  };

  std::filesystem::path directory_;
  std::vector<std::unique_ptr<Shard>> shards_;
  std::map<std::string, Location> locations_;
  size_t tensor_bytes_ = 0;
  std::atomic<size_t> written_bytes_{0};
};

}  // namespace skipper
