#include "residency/expert_file.h"

#include <fcntl.h>
#include <glog/logging.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/error.h"
#include "residency/async_reader.h"
#include "residency/direct_file.h"

namespace skipper {
namespace {

using nlohmann::json;

constexpr std::array<char, 8> kMagic = {'S', 'K', 'I', 'P', 'E', 'X', 'P', '1'};
constexpr size_t kPrefixBytes = kMagic.size() + sizeof(uint64_t);
constexpr size_t kMostHeaderBytes = size_t{256} << 20;
constexpr size_t kHashDigits = 16;

std::string to_text(const ExpertFileContent& content) {
  const ExpertFileSubject& subject = content.subject;
  json records = json::array();
  for (const ExpertRecord& record : content.records) {
    // Without a hash yet, the size of the header is that with one.
    const std::string hash = record.hash.empty() ? std::string(kHashDigits, '0') : record.hash;
    records.push_back({record.id.layer, record.id.expert, name_of(record.format), hash});
  }
  return json{{"version", 1},
              {"model_fingerprint", subject.model_fingerprint},
              {"checkpoint", subject.checkpoint},
              {"rank", subject.rank},
              {"world_size", subject.world_size},
              {"hidden_size", subject.hidden_size},
              {"intermediate_size", subject.intermediate_size},
              {"records", records}}
      .dump();
}

// Nothing for what another version of Skipper may have written.
std::optional<ExpertFileContent> parse(const std::string& text) {
  try {
    const json header = json::parse(text);
    if (header.at("version") != 1) return std::nullopt;
    ExpertFileContent content{.subject = {.model_fingerprint = header.at("model_fingerprint"),
                                          .checkpoint = header.at("checkpoint"),
                                          .rank = header.at("rank"),
                                          .world_size = header.at("world_size"),
                                          .hidden_size = header.at("hidden_size"),
                                          .intermediate_size = header.at("intermediate_size")},
                              .records = {}};
    for (const json& record : header.at("records")) {
      content.records.push_back({.id = {record.at(0), record.at(1)},
                                 .format = parse_weight_format(record.at(2).get<std::string>(), "format"),
                                 .hash = record.at(3)});
    }
    return content;
  } catch (const json::exception&) {
    return std::nullopt;
  } catch (const InvalidRequest&) {
    return std::nullopt;
  }
}

uint64_t end_of(const ExpertFileContent& content) {
  return content.records.empty() ? 0 : content.records.back().offset + content.records.back().num_bytes;
}

// The header of a file that is Skipper's.
std::string read_header(const std::filesystem::path& path, std::ifstream& file) {
  std::array<char, kMagic.size()> magic{};
  uint64_t size = 0;
  file.read(magic.data(), magic.size());
  file.read(reinterpret_cast<char*>(&size), sizeof(size));
  if (!file || magic != kMagic || size > kMostHeaderBytes) {
    throw InvalidFile(path.string() + ": is no expert file of Skipper; remove it, or give --disk another directory");
  }
  std::string text(size, '\0');
  file.read(text.data(), static_cast<std::streamsize>(size));
  if (!file) throw InvalidFile(path.string() + ": ends within its header; remove it, so that it is written anew");
  return text;
}

bool holds_what_is_wanted(const ExpertFileContent& found, const ExpertFileContent& wanted) {
  if (!(found.subject == wanted.subject) || found.records.size() != wanted.records.size()) return false;
  return std::ranges::equal(found.records, wanted.records, [](const ExpertRecord& have, const ExpertRecord& want) {
    return have.id == want.id && have.format == want.format && (want.hash.empty() || have.hash == want.hash);
  });
}

std::string describe(const ExpertRecord& record) {
  return "expert " + std::to_string(record.id.expert) + " of MoE layer " + std::to_string(record.id.layer);
}

}  // namespace

size_t largest_record(const ExpertFileContent& content) {
  size_t largest = 0;
  for (const ExpertRecord& record : content.records) largest = std::max(largest, record.num_bytes);
  return largest;
}

std::filesystem::path expert_file_path(const std::filesystem::path& directory, const ExpertFileSubject& subject) {
  return directory / ("experts-" + subject.model_fingerprint + "-rank" + std::to_string(subject.rank) + "of" +
                      std::to_string(subject.world_size) + ".skipper");
}

void lay_out(ExpertFileContent& content) {
  const ExpertShape shape{content.subject.hidden_size, content.subject.intermediate_size};
  uint64_t next = round_up_to_direct(kPrefixBytes + to_text(content).size());
  for (ExpertRecord& record : content.records) {
    record.offset = next;
    record.num_bytes = record_bytes(record.format, shape);
    next += record.num_bytes;
  }
}

bool find_expert_file(const std::filesystem::path& path, ExpertFileContent& wanted) {
  std::error_code status;
  if (!std::filesystem::exists(path, status)) return false;
  std::ifstream file(path, std::ios::binary);
  if (!file) throw InvalidFile(path.string() + ": cannot be read; check its permissions, or remove it");
  std::optional<ExpertFileContent> found = parse(read_header(path, file));
  if (!found || !holds_what_is_wanted(*found, wanted)) return false;
  lay_out(*found);
  const uint64_t size = std::filesystem::file_size(path);
  if (size < end_of(*found)) {
    throw InvalidFile(path.string() + ": has " + std::to_string(size) + " bytes, but its header speaks of " +
                      std::to_string(end_of(*found)) + "; remove it, so that it is written anew");
  }
  wanted = std::move(*found);
  return true;
}

void check_expert_file(const std::filesystem::path& path, const ExpertFileContent& content, const ExpertShape& shape,
                       const ExpertHash& hash_of) {
  if (content.records.empty()) return;
  const size_t largest = largest_record(content);
  const DirectFile file(path);
  const auto memory = allocate_for_direct_reads(2 * largest);
  AsyncReader reader(file);
  const auto start = [&](size_t index) {
    const ExpertRecord& record = content.records[index];
    return reader.start({record.offset, record.num_bytes, memory.get() + (index % 2) * largest}, ReadUrgency::kDemand);
  };
  // One is read while the one before is hashed.
  uint64_t next = start(0);
  for (size_t index = 0; index < content.records.size(); ++index) {
    reader.wait(next);
    if (index + 1 < content.records.size()) next = start(index + 1);
    const ExpertRecord& record = content.records[index];
    const std::string hash = hash_of(record_at(memory.get() + (index % 2) * largest, record.format, shape));
    if (hash == record.hash) continue;
    throw InvalidFile(path.string() + ": " + describe(record) + " has the hash " + hash + ", but the header says " + record.hash +
                      "; file or disk are damaged: check the disk and remove the file, so that it is written anew");
  }
}

ExpertFileWriter::ExpertFileWriter(const std::filesystem::path& path, ExpertFileContent content)
    : path_(path), partial_path_(path.string() + ".partial"), content_(std::move(content)) {
  descriptor_ = ::open(partial_path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (descriptor_ < 0) fail("cannot be written", errno);
  if (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0) {
    const int error = errno;
    ::close(std::exchange(descriptor_, -1));  // it is the other's
    fail("is being written by another process", error);
  }
  reserve(end_of(content_));
  record_ = allocate_for_direct_reads(largest_record(content_));
}

ExpertFileWriter::~ExpertFileWriter() {
  if (descriptor_ < 0) return;
  if (!is_committed_) ::unlink(partial_path_.c_str());
  ::close(descriptor_);
}

void ExpertFileWriter::reserve(uint64_t num_bytes) {
  const int error = num_bytes == 0 ? 0 : ::posix_fallocate(descriptor_, 0, static_cast<off_t>(num_bytes));
  if (error == 0) return;
  ::unlink(partial_path_.c_str());
  ::close(std::exchange(descriptor_, -1));
  fail("no room for " + std::to_string(num_bytes) + " bytes of experts", error);
}

void ExpertFileWriter::write(size_t index, const ExpertMatrices& matrices, const std::string& hash) {
  ExpertRecord& record = content_.records.at(index);
  const ExpertShape shape{content_.subject.hidden_size, content_.subject.intermediate_size};
  CHECK(matrices.down.format == record.format && hash.size() == kHashDigits) << describe(record);
  fill_record(matrices, shape, record_.get());
  write_at(record.offset, record_.get(), record.num_bytes);
  record.hash = hash;
}

const ExpertFileContent& ExpertFileWriter::commit() {
  for (const ExpertRecord& record : content_.records) CHECK(!record.hash.empty()) << describe(record) << " was not written";
  const std::string text = to_text(content_);
  const uint64_t size = text.size();
  std::vector<std::byte> header(round_up_to_direct(kPrefixBytes + text.size()));
  std::memcpy(header.data(), kMagic.data(), kMagic.size());
  std::memcpy(header.data() + kMagic.size(), &size, sizeof(size));
  std::memcpy(header.data() + kPrefixBytes, text.data(), text.size());
  write_at(0, header.data(), header.size());
  if (::fsync(descriptor_) != 0) fail("cannot be written", errno);
  // Read past the page cache from here on: what writing left there only takes memory.
  ::posix_fadvise(descriptor_, 0, 0, POSIX_FADV_DONTNEED);
  if (::rename(partial_path_.c_str(), path_.c_str()) != 0) fail("cannot be renamed", errno);
  is_committed_ = true;
  return content_;
}

void ExpertFileWriter::fail(const std::string& what, int error) const {
  throw InvalidFile(partial_path_.string() + ": " + what + ": " + std::strerror(error) +
                    "; make room, or give --disk another directory");
}

void ExpertFileWriter::write_at(uint64_t offset, const std::byte* bytes, size_t num_bytes) {
  while (num_bytes > 0) {
    const ssize_t count = ::pwrite(descriptor_, bytes, num_bytes, static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail("cannot be written", errno);
    offset += static_cast<uint64_t>(count);
    bytes += count;
    num_bytes -= static_cast<size_t>(count);
  }
}

}  // namespace skipper
