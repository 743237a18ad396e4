#include "tensor/safetensors_writer.h"

#include <fcntl.h>
#include <glog/logging.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace skipper {

using nlohmann::json;

namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kHeaderLengthBytes = 8;

[[noreturn]] void fail(const std::filesystem::path& path, int reason) {
  throw Error(path.string() + ": cannot be written (" + std::strerror(reason) +
              "); free space there, check permissions, or write elsewhere");
}

std::string file_dtype(DType dtype) {
  std::string name(name_of(dtype));
  std::ranges::transform(name, name.begin(), [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  return name;
}

json dims_of(const Shape& shape) {
  json dims = json::array();
  for (int axis = 0; axis < shape.rank(); ++axis) dims.push_back(shape[axis]);
  return dims;
}

// The largest power of two up to kAlignment that divides the size. In descending order of it tensors lie without gaps, which
// the format forbids, each on a multiple of its own.
size_t alignment_of(const TensorPlan& plan) {
  return size_t{1} << std::countr_zero(plan.num_bytes() | kAlignment);
}

// Shards in the order of the tensors; within a shard by alignment.
std::vector<std::vector<TensorPlan>> split_into_shards(const std::vector<TensorPlan>& tensors, size_t max_shard_bytes) {
  std::vector<std::vector<TensorPlan>> shards(1);
  size_t bytes = 0;
  for (const TensorPlan& plan : tensors) {
    if (!shards.back().empty() && bytes + plan.num_bytes() > max_shard_bytes) {
      shards.emplace_back();
      bytes = 0;
    }
    shards.back().push_back(plan);
    bytes += plan.num_bytes();
  }
  for (std::vector<TensorPlan>& shard : shards) std::ranges::stable_sort(shard, std::greater(), alignment_of);
  return shards;
}

std::string shard_name(size_t index, size_t count) {
  char name[64];
  std::snprintf(name, sizeof(name), "model-%05zu-of-%05zu.safetensors", index + 1, count);
  return name;
}

// Length and JSON, padded with spaces so that the data begin on a multiple of kAlignment.
std::string header_of(const std::vector<TensorPlan>& tensors) {
  json header = {{"__metadata__", {{"format", "pt"}}}};
  size_t offset = 0;
  for (const TensorPlan& plan : tensors) {
    header[plan.name] = {{"dtype", file_dtype(plan.dtype)},
                         {"shape", dims_of(plan.shape)},
                         {"data_offsets", {offset, offset + plan.num_bytes()}}};
    offset += plan.num_bytes();
  }
  std::string text = header.dump();
  text.resize((kHeaderLengthBytes + text.size() + kAlignment - 1) / kAlignment * kAlignment - kHeaderLengthBytes, ' ');
  std::string length(kHeaderLengthBytes, '\0');
  for (size_t i = 0; i < kHeaderLengthBytes; ++i) length[i] = static_cast<char>(uint64_t{text.size()} >> (8 * i));
  return length + text;
}

}  // namespace

class SafetensorsWriter::Shard {
 public:
  Shard(std::filesystem::path path, const std::string& header, size_t file_bytes)
      : path_(std::move(path)),
        file_bytes_(file_bytes),
        descriptor_(open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644)) {
    if (descriptor_ < 0) fail(path_, errno);
    try {
      reserve();
      write(header.data(), header.size(), 0);
    } catch (...) {
      close(descriptor_);
      throw;
    }
  }
  ~Shard() { close(descriptor_); }
  Shard(const Shard&) = delete;
  Shard& operator=(const Shard&) = delete;

  const std::filesystem::path& path() const { return path_; }
  size_t file_bytes() const { return file_bytes_; }

  void write(const void* bytes, size_t size, size_t offset) {
    const char* next = static_cast<const char*>(bytes);
    while (size > 0) {
      const ssize_t written = pwrite(descriptor_, next, size, static_cast<off_t>(offset));
      if (written < 0 && errno == EINTR) continue;
      if (written <= 0) fail(path_, written < 0 ? errno : ENOSPC);
      next += written;
      offset += static_cast<size_t>(written);
      size -= static_cast<size_t>(written);
    }
  }

  void flush() {
    if (fsync(descriptor_) != 0) fail(path_, errno);
  }

 private:
  // Some file systems cannot; they tell when they are full.
  void reserve() {
    if (fallocate(descriptor_, 0, 0, static_cast<off_t>(file_bytes_)) == 0) return;
    if (errno != EOPNOTSUPP && errno != ENOSYS) fail(path_, errno);
  }

  std::filesystem::path path_;
  size_t file_bytes_;
  int descriptor_;
};

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& directory, const std::vector<TensorPlan>& tensors,
                                     size_t max_shard_bytes)
    : directory_(directory) {
  const std::vector<std::vector<TensorPlan>> shards = split_into_shards(tensors, max_shard_bytes);
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string header = header_of(shards[i]);
    size_t offset = header.size();
    for (const TensorPlan& plan : shards[i]) {
      CHECK(locations_.emplace(plan.name, Location{i, offset, plan}).second) << plan.name << " is planned twice";
      offset += plan.num_bytes();
      tensor_bytes_ += plan.num_bytes();
    }
    shards_.push_back(std::make_unique<Shard>(directory / shard_name(i, shards.size()), header, offset));
  }
}

SafetensorsWriter::~SafetensorsWriter() = default;

size_t SafetensorsWriter::file_bytes() const {
  size_t total = 0;
  for (const auto& shard : shards_) total += shard->file_bytes();
  return total;
}

void SafetensorsWriter::write(const std::string& name, const Tensor& tensor, int64_t first_row) {
  const auto found = locations_.find(name);
  CHECK(found != locations_.end()) << name << " was not planned";
  const Location& location = found->second;
  const Shape& shape = location.plan.shape;
  CHECK(tensor.dtype() == location.plan.dtype) << name;
  CHECK(shape.rank() == 0 || tensor.shape().with_first(shape[0]) == shape)
      << name << ": rows of " << tensor.shape().to_string() << " for " << shape.to_string();
  const size_t row_bytes = shape.rank() == 0 || shape[0] == 0 ? 0 : location.plan.num_bytes() / static_cast<size_t>(shape[0]);
  const size_t begin = static_cast<size_t>(first_row) * row_bytes;
  CHECK_LE(begin + tensor.num_bytes(), location.plan.num_bytes()) << name;
  shards_[location.shard]->write(tensor.bytes(), tensor.num_bytes(), location.offset + begin);
  written_bytes_ += tensor.num_bytes();
}

void SafetensorsWriter::finish() {
  CHECK_EQ(written_bytes_.load(), tensor_bytes_) << "not every tensor was written once";
  json index = {{"metadata", {{"total_size", tensor_bytes_}}}, {"weight_map", json::object()}};
  for (const auto& [name, location] : locations_) index["weight_map"][name] = shards_[location.shard]->path().filename().string();
  for (const auto& shard : shards_) shard->flush();
  const std::filesystem::path path = directory_ / "model.safetensors.index.json";
  std::ofstream file(path);
  file << index.dump(2) << "\n" << std::flush;
  if (!file) fail(path, errno != 0 ? errno : EIO);
}

}  // namespace skipper
