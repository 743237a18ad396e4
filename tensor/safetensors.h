// Memory-mapped reader of a Hugging Face checkpoint: tensor name → view of the mapped bytes.
//
// Goals: no copy, no read of a byte nobody asks for, every header offset checked against the file before use (a model
// directory is untrusted input). Non-goals: writing, other formats, converting element types.
// Format: https://huggingface.co/docs/safetensors, 8-byte little-endian header length, JSON header, data.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tensor/tensor.h"

namespace skipper {

struct SafetensorsEntry;

// One mapped *.safetensors file. The mapping lives as long as the object. Thread-safe after construction.
class SafetensorsFile {
 public:
  // Throws InvalidFile naming the file: missing, shorter than its header says, a header that is no JSON, an offset outside
  // the file, overlapping tensors, a size that does not match shape and dtype.
  explicit SafetensorsFile(const std::filesystem::path& path);
  ~SafetensorsFile();
  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;

  const std::filesystem::path& path() const { return path_; }
  // The readable tensors, by name.
  const std::map<std::string, Tensor>& tensors() const { return tensors_; }
  // Sound tensors that this program cannot view, with the reason: an element type other than F32, BF16, F16, I32, I64 and
  // U8, more than five dimensions, or a start that is no multiple of the element size. Harmless until somebody asks for one.
  const std::map<std::string, std::string>& refusals() const { return refusals_; }
  // The mapped bytes, for accounting of resident pages.
  const std::byte* mapping() const { return mapping_; }
  size_t mapping_bytes() const { return mapping_bytes_; }

 private:
  void map_file();
  void parse_header();
  void add_tensor(const std::string& name, const SafetensorsEntry& entry, size_t data_begin);

  std::filesystem::path path_;
  std::byte* mapping_ = nullptr;
  size_t mapping_bytes_ = 0;
  std::map<std::string, Tensor> tensors_;
  std::map<std::string, std::string> refusals_;
};

// All shards of a checkpoint directory: model.safetensors, or model.safetensors.index.json and the files it lists.
class Checkpoint {
 public:
  // Maps every shard; reads headers only. Throws InvalidFile naming the file and what to do.
  explicit Checkpoint(const std::filesystem::path& directory);

  const std::filesystem::path& directory() const { return directory_; }
  // True also for a tensor that `get` would refuse.
  bool has(const std::string& name) const;
  // A view of the mapped bytes, valid as long as the checkpoint. Throws InvalidFile naming tensor and directory when the
  // tensor is missing, or has another shape than `expected` (both shapes are named).
  Tensor get(const std::string& name, const Shape& expected) const;
  // The same whatever its shape.
  Tensor get(const std::string& name) const;
  std::vector<std::string> names() const;

  // Reads the pages of `view`, a tensor of this checkpoint or a part of one, into memory for use in place. Throws InvalidFile
  // when they cannot be read.
  void read_in(const Tensor& view) const;
  // Tells the operating system that the whole pages inside `view`, a tensor of this checkpoint or a part of one, are not
  // needed any more in this process (they were copied elsewhere). Reading them again is allowed and reads the file.
  void release_pages(const Tensor& view) const;
  // The same for all tensors.
  void release_all_pages() const;
  // Whether `view` lies in the mapping.
  bool holds(const Tensor& view) const;
  // Bytes of the mappings that are resident in this process (/proc/self/smaps), page granularity.
  size_t resident_bytes() const;

 private:
  void open_shards(const std::filesystem::path& index_path);
  const SafetensorsFile& file_of(const std::string& name) const;

  std::filesystem::path directory_;
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::map<std::string, size_t> file_index_;
};

}  // namespace skipper
