// The file in which a rank keeps its experts of the disk: a header that says whose they are, then one record each.
//
//   "SKIPEXP1", header size (u64, little endian), header as JSON, zeros up to a multiple of 4096; then the records, each on
//   a multiple of 4096 and in the bytes of memory (residency/expert_record.h)
//
// Goals: what is in it is either complete or not there (it is written beside and renamed); a server that starts again reads, not
// rounds; nothing that another model, plan or checkpoint left is taken for one's own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "residency/expert_record.h"

namespace skipper {

// Whose experts a file holds.
struct ExpertFileSubject {
  std::string model_fingerprint = {};
  std::string checkpoint = {};  // names, sizes and times of the weight files: a fingerprint does not see other weights
  int rank = 0;
  int world_size = 1;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;

  friend bool operator==(const ExpertFileSubject&, const ExpertFileSubject&) = default;
};

struct ExpertRecord {
  ExpertId id;
  WeightFormat format;
  std::string hash = {};  // of the matrices, 16 hexadecimal digits
  uint64_t offset = 0;
  size_t num_bytes = 0;
};

struct ExpertFileContent {
  ExpertFileSubject subject;
  std::vector<ExpertRecord> records;  // by layer and slot
};

// Bytes of the largest record; 0: there are none.
size_t largest_record(const ExpertFileContent& content);

// Where a rank's file lies in `directory`.
std::filesystem::path expert_file_path(const std::filesystem::path& directory, const ExpertFileSubject& subject);

// Sets offsets and sizes of the records, as a file will have them.
void lay_out(ExpertFileContent& content);

// True: the file is there and holds just these experts; `wanted` has its hashes and offsets then. False: there is none, or one of
// another plan, checkpoint or version of Skipper. Throws InvalidFile for a file that is none of Skipper's, cannot be read, or is
// shorter than its header says.
bool find_expert_file(const std::filesystem::path& path, ExpertFileContent& wanted);

// Reads every record and throws InvalidFile naming the first whose hash, computed by `hash_of`, is not that of `content`.
using ExpertHash = std::function<std::string(const ExpertMatrices&)>;
void check_expert_file(const std::filesystem::path& path, const ExpertFileContent& content, const ExpertShape& shape,
                       const ExpertHash& hash_of);

// Writes the file under another name; only commit() makes it the one that is found. Throws InvalidFile naming file and reason: a
// full disk, one that cannot be written, another process that writes the same file.
class ExpertFileWriter {
 public:
  // Takes the room on the disk at once. `content` is laid out.
  ExpertFileWriter(const std::filesystem::path& path, ExpertFileContent content);
  // Without commit() nothing is left.
  ~ExpertFileWriter();
  ExpertFileWriter(const ExpertFileWriter&) = delete;
  ExpertFileWriter& operator=(const ExpertFileWriter&) = delete;

  // One record; `index` among those of the content.
  void write(size_t index, const ExpertMatrices& matrices, const std::string& hash);
  // After all records. Returns the content with all hashes.
  const ExpertFileContent& commit();

 private:
  [[noreturn]] void fail(const std::string& what, int error) const;
  void reserve(uint64_t num_bytes);
  void write_at(uint64_t offset, const std::byte* bytes, size_t num_bytes);

  std::filesystem::path path_;
  std::filesystem::path partial_path_;
  ExpertFileContent content_;
  std::shared_ptr<std::byte> record_;  // room for the largest
  int descriptor_ = -1;
  bool is_committed_ = false;
};

}  // namespace skipper
