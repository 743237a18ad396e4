#include "tensor/safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/error.h"
#include "base/json_fields.h"
#include "tensor/resident_pages.h"

namespace skipper {

using nlohmann::json;

// What the header says about one tensor; offsets count from the end of the header.
struct SafetensorsEntry {
  std::string dtype;
  std::vector<uint64_t> dims;
  uint64_t begin = 0;
  uint64_t end = 0;
};

namespace {

constexpr size_t kLengthBytes = 8;
constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the limit of the format's reference reader

struct FileDType {
  std::string_view name;
  size_t num_bytes;
  std::optional<DType> dtype;  // nothing for a type this program cannot view
};

constexpr FileDType kFileDTypes[] = {
    {"F32", 4, DType::kF32},   {"BF16", 2, DType::kBF16},    {"F16", 2, DType::kF16},      {"I32", 4, DType::kI32},
    {"I64", 8, DType::kI64},   {"U8", 1, DType::kU8},        {"F64", 8, std::nullopt},     {"I16", 2, std::nullopt},
    {"I8", 1, std::nullopt},   {"U16", 2, std::nullopt},     {"U32", 4, std::nullopt},     {"U64", 8, std::nullopt},
    {"BOOL", 1, std::nullopt}, {"F8_E4M3", 1, std::nullopt}, {"F8_E5M2", 1, std::nullopt},
};

const FileDType* find_dtype(const std::string& name) {
  const auto* found =
      std::find_if(std::begin(kFileDTypes), std::end(kFileDTypes), [&](const FileDType& d) { return d.name == name; });
  return found == std::end(kFileDTypes) ? nullptr : found;
}

// Names come from the file: escaped and cut, so that a message stays one line.
std::string quoted(const std::string& name) {
  constexpr size_t kMaxNameInMessage = 200;
  return json(name.substr(0, kMaxNameInMessage)).dump(-1, ' ', true, json::error_handler_t::replace);
}

[[noreturn]] void fail(const std::filesystem::path& path, const std::string& problem) {
  throw InvalidFile(path.string() + ": " + problem + "; download the file again or check that it is a safetensors file");
}

[[noreturn]] void fail_tensor(const std::filesystem::path& path, const std::string& name, const std::string& problem) {
  fail(path, "tensor " + quoted(name) + " " + problem);
}

std::vector<uint64_t> parse_naturals(const json& list) {
  std::vector<uint64_t> result;
  for (const json& value : list) {
    if (!value.is_number_unsigned()) return {};
    result.push_back(value.get<uint64_t>());
  }
  return result;
}

// The entry, or nothing when it is not {"dtype": text, "shape": [naturals], "data_offsets": [begin, end]}.
std::optional<SafetensorsEntry> parse_entry(const json& value) {
  if (!value.is_object() || !value.contains("dtype") || !value.contains("shape") || !value.contains("data_offsets")) return {};
  const json &dtype = value["dtype"], &shape = value["shape"], &offsets = value["data_offsets"];
  if (!dtype.is_string() || !shape.is_array() || !offsets.is_array()) return {};
  SafetensorsEntry entry{.dtype = dtype.get<std::string>(), .dims = parse_naturals(shape)};
  const std::vector<uint64_t> range = parse_naturals(offsets);
  if (entry.dims.size() != shape.size() || range.size() != 2) return {};
  entry.begin = range[0];
  entry.end = range[1];
  return entry;
}

// The bytes that shape and element type ask for; nothing when it does not fit 63 bits.
std::optional<uint64_t> bytes_of(const std::vector<uint64_t>& dims, size_t element_bytes) {
  uint64_t bytes = element_bytes;
  for (const uint64_t dim : dims) {
    if (__builtin_mul_overflow(bytes, dim, &bytes) || bytes > INT64_MAX || dim > INT64_MAX) return {};
  }
  return bytes;
}

void check_range(const std::filesystem::path& path, const std::string& name, const SafetensorsEntry& entry,
                 uint64_t data_bytes) {
  if (entry.begin > entry.end || entry.end > data_bytes) {
    fail_tensor(path, name,
                "spans bytes " + std::to_string(entry.begin) + " to " + std::to_string(entry.end) + " of a file with " +
                    std::to_string(data_bytes) + " bytes of data");
  }
  const FileDType* dtype = find_dtype(entry.dtype);
  if (dtype == nullptr) return;
  const std::optional<uint64_t> bytes = bytes_of(entry.dims, dtype->num_bytes);
  if (!bytes || *bytes != entry.end - entry.begin) {
    fail_tensor(path, name,
                "has " + std::to_string(entry.end - entry.begin) + " bytes of data, its shape and element type " +
                    std::string(dtype->name) + " need " + (bytes ? std::to_string(*bytes) : "more than 2^63"));
  }
}

void check_no_overlap(const std::filesystem::path& path, const std::map<std::string, SafetensorsEntry>& entries) {
  std::vector<std::pair<uint64_t, std::string>> by_begin;
  for (const auto& [name, entry] : entries) {
    if (entry.begin < entry.end) by_begin.emplace_back(entry.begin, name);
  }
  std::sort(by_begin.begin(), by_begin.end());
  for (size_t i = 1; i < by_begin.size(); ++i) {
    const std::string &before = by_begin[i - 1].second, &name = by_begin[i].second;
    if (entries.at(before).end > entries.at(name).begin) fail_tensor(path, name, "overlaps tensor " + quoted(before));
  }
}

bool is_plain_file_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.find_first_of(std::string_view("/\\\0", 3)) == std::string::npos;
}

}  // namespace

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path) : path_(path) {
  map_file();
  try {
    parse_header();
  } catch (...) {
    munmap(mapping_, mapping_bytes_);
    throw;
  }
}

SafetensorsFile::~SafetensorsFile() { munmap(mapping_, mapping_bytes_); }

void SafetensorsFile::map_file() {
  // Non-blocking, or a named pipe in place of the file would wait for a writer.
  const int descriptor = open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) {
    throw InvalidFile(path_.string() + ": cannot be opened (" + std::strerror(errno) + "); check the path and its permissions");
  }
  struct stat status {};
  const bool is_file = fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode);
  mapping_bytes_ = is_file ? static_cast<size_t>(status.st_size) : 0;
  void* memory = MAP_FAILED;
  if (mapping_bytes_ > kLengthBytes) memory = mmap(nullptr, mapping_bytes_, PROT_READ, MAP_PRIVATE, descriptor, 0);
  const int mapping_error = errno;
  close(descriptor);
  if (!is_file) fail(path_, "is not a regular file");
  if (mapping_bytes_ <= kLengthBytes)
    fail(path_, "has only " + std::to_string(mapping_bytes_) + " bytes, too few for a header");
  if (memory == MAP_FAILED) throw DeviceError(path_.string() + ": cannot be mapped (" + std::strerror(mapping_error) + ")");
  mapping_ = static_cast<std::byte*>(memory);
}

void SafetensorsFile::parse_header() {
  uint64_t header_bytes = 0;
  for (size_t i = 0; i < kLengthBytes; ++i) header_bytes |= std::to_integer<uint64_t>(mapping_[i]) << (8 * i);
  const uint64_t available = mapping_bytes_ - kLengthBytes;
  if (header_bytes > std::min(available, kMaxHeaderBytes)) {
    fail(path_, "announces a header of " + std::to_string(header_bytes) + " bytes in a file of " +
                    std::to_string(mapping_bytes_) + " (at most " + std::to_string(kMaxHeaderBytes) + " are allowed)");
  }
  const char* text = reinterpret_cast<const char*>(mapping_) + kLengthBytes;
  const json header = json::parse(text, text + header_bytes, nullptr, false);
  if (!header.is_object()) fail(path_, "has a header that is no JSON object");

  std::map<std::string, SafetensorsEntry> entries;
  for (const auto& [name, value] : header.items()) {
    if (name == "__metadata__") continue;
    std::optional<SafetensorsEntry> entry = parse_entry(value);
    if (!entry) fail_tensor(path_, name, "lacks a valid dtype, shape or data_offsets in the header");
    check_range(path_, name, *entry, available - header_bytes);
    entries.emplace(name, std::move(*entry));
  }
  check_no_overlap(path_, entries);
  for (const auto& [name, entry] : entries) add_tensor(name, entry, kLengthBytes + header_bytes);
}

void SafetensorsFile::add_tensor(const std::string& name, const SafetensorsEntry& entry, size_t data_begin) {
  const FileDType* dtype = find_dtype(entry.dtype);
  const size_t begin = data_begin + entry.begin;
  if (dtype == nullptr || !dtype->dtype) {
    refusals_[name] = "has element type " + quoted(entry.dtype) + "; F32, BF16, F16, I32, I64 and U8 are supported";
  } else if (entry.dims.size() > Shape::kMaxRank) {
    refusals_[name] = "has " + std::to_string(entry.dims.size()) + " dimensions, at most " + std::to_string(Shape::kMaxRank) +
                      " are supported";
  } else if (begin % dtype->num_bytes != 0) {
    refusals_[name] = "starts at byte " + std::to_string(begin) + ", which is not aligned to its element type " + entry.dtype +
                      "; write the file again with the safetensors library";
  } else {
    const std::vector<int64_t> dims(entry.dims.begin(), entry.dims.end());
    tensors_[name] = Tensor::borrow_const(mapping_ + begin, Shape(dims), *dtype->dtype);
  }
}

Checkpoint::Checkpoint(const std::filesystem::path& directory) : directory_(directory) {
  const std::filesystem::path single = directory / "model.safetensors", index = directory / "model.safetensors.index.json";
  std::error_code ignored;
  if (!std::filesystem::is_directory(directory, ignored)) {
    throw InvalidFile(directory.string() + ": is not a directory; name the directory of a Hugging Face checkpoint");
  }
  if (std::filesystem::exists(single, ignored)) {
    files_.push_back(std::make_unique<SafetensorsFile>(single));
    for (const auto& [name, tensor] : files_[0]->tensors()) file_index_[name] = 0;
    for (const auto& [name, reason] : files_[0]->refusals()) file_index_[name] = 0;
  } else if (std::filesystem::exists(index, ignored)) {
    open_shards(index);
  } else {
    throw InvalidFile(directory.string() + ": holds neither model.safetensors nor model.safetensors.index.json; " +
                      "name the directory of a Hugging Face checkpoint");
  }
}

void Checkpoint::open_shards(const std::filesystem::path& index_path) {
  const json index = read_json_file(index_path);
  if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object()) {
    throw InvalidFile(index_path.string() + ": has no object weight_map; download the file again");
  }
  std::map<std::string, size_t> shards;
  for (const auto& [name, value] : index["weight_map"].items()) {
    const std::string shard = value.is_string() ? value.get<std::string>() : "";
    if (!is_plain_file_name(shard)) {
      throw InvalidFile(index_path.string() + ": weight_map places tensor " + quoted(name) + " in " + quoted(value.dump()) +
                        "; expected the name of a file in the same directory");
    }
    const auto [entry, is_new] = shards.emplace(shard, files_.size());
    if (is_new) {
      if (std::error_code ignored; !std::filesystem::exists(directory_ / shard, ignored)) {
        throw InvalidFile((directory_ / shard).string() +
                          ": is missing, but model.safetensors.index.json lists it; download it");
      }
      files_.push_back(std::make_unique<SafetensorsFile>(directory_ / shard));
    }
    const SafetensorsFile& file = *files_[entry->second];
    if (!file.tensors().contains(name) && !file.refusals().contains(name)) {
      fail_tensor(file.path(), name, "is missing, but model.safetensors.index.json places it there");
    }
    file_index_[name] = entry->second;
  }
}

bool Checkpoint::has(const std::string& name) const { return file_index_.contains(name); }

const SafetensorsFile& Checkpoint::file_of(const std::string& name) const {
  const auto entry = file_index_.find(name);
  if (entry == file_index_.end()) {
    throw InvalidFile(directory_.string() + ": has no tensor " + quoted(name) +
                      "; the checkpoint is incomplete or of another architecture than its config.json says");
  }
  return *files_[entry->second];
}

Tensor Checkpoint::get(const std::string& name) const {
  const SafetensorsFile& file = file_of(name);
  if (const auto refusal = file.refusals().find(name); refusal != file.refusals().end()) {
    throw InvalidFile(file.path().string() + ": tensor " + quoted(name) + " " + refusal->second);
  }
  return file.tensors().at(name);
}

Tensor Checkpoint::get(const std::string& name, const Shape& expected) const {
  const Tensor tensor = get(name);
  if (tensor.shape() == expected) return tensor;
  throw InvalidFile(file_of(name).path().string() + ": tensor " + quoted(name) + " has shape " + tensor.shape().to_string() +
                    ", expected " + expected.to_string() + "; config.json and weights do not belong together");
}

std::vector<std::string> Checkpoint::names() const {
  std::vector<std::string> result;
  for (const auto& [name, file] : file_index_) result.push_back(name);
  return result;
}

void Checkpoint::read_in(const Tensor& view) const {
  CHECK(holds(view)) << "read_in of memory that is not this checkpoint's";
  if (read_in_pages(view.bytes(), view.num_bytes())) return;
  throw InvalidFile(directory_.string() + ": " + std::to_string(view.num_bytes()) + " bytes of the weights cannot be read (" +
                    std::strerror(errno) + "); check the disk, and that nobody has cut a file since");
}

void Checkpoint::release_pages(const Tensor& view) const {
  CHECK(holds(view)) << "release_pages of memory that is not this checkpoint's: its contents would be lost";
  release_whole_pages(view.bytes(), view.num_bytes());
}

void Checkpoint::release_all_pages() const {
  for (const auto& file : files_) release_whole_pages(file->mapping(), file->mapping_bytes());
}

bool Checkpoint::holds(const Tensor& view) const {
  return std::any_of(files_.begin(), files_.end(), [&view](const auto& file) {
    return view.bytes() >= file->mapping() && view.bytes() + view.num_bytes() <= file->mapping() + file->mapping_bytes();
  });
}

size_t Checkpoint::resident_bytes() const {
  std::vector<MemoryRange> mappings;
  for (const auto& file : files_) mappings.push_back({file->mapping(), file->mapping_bytes()});
  return resident_bytes_of(mappings);
}

}  // namespace skipper
