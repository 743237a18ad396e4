#include "engine/reference_file.h"

#include <cstring>
#include <fstream>
#include <sstream>
#include <vector>

#include "base/error.h"

namespace skipper {
namespace {

namespace fs = std::filesystem;

// "skipper references 1 of R ranks: ORIGIN", then for each reference its id, how many numbers, and the numbers.
constexpr const char* kTitle = "skipper references 1 of ";
constexpr const char* kAfterRanks = " ranks: ";

struct RecordHead {
  uint64_t id = 0;
  uint64_t count = 0;
};

fs::path file_of_rank(const fs::path& path, int rank) { return path.string() + ".rank" + std::to_string(rank); }

// Returns how many ranks wrote.
int read_title(std::ifstream& file, const fs::path& path, const std::string& origin) {
  std::string line;
  std::getline(file, line);
  const size_t after = line.find(kAfterRanks);
  if (line.rfind(kTitle, 0) != 0 || after == std::string::npos) {
    throw InvalidFile(path.string() + ": is no file of --save_reference");
  }
  const std::string found = line.substr(after + std::strlen(kAfterRanks));
  if (found != origin) {
    throw InvalidFile(path.string() + ": holds predictions of " + found + ", but these are of " + origin +
                      "; save them again with the same model, data and limits");
  }
  int num_ranks = 0;
  std::istringstream(line.substr(std::strlen(kTitle))) >> num_ranks;
  return num_ranks;
}

void read_records(std::ifstream& file, const fs::path& path, const std::function<bool(uint64_t)>& is_wanted,
                  ReferenceStore& store) {
  const auto end = static_cast<std::streamoff>(fs::file_size(path));
  RecordHead head;
  while (file.read(reinterpret_cast<char*>(&head), sizeof(head))) {
    const uint64_t left = static_cast<uint64_t>(end - file.tellg()) / sizeof(float);
    if (head.count > left) throw InvalidFile(path.string() + ": is cut short; save it again");
    const auto num_bytes = static_cast<std::streamoff>(head.count * sizeof(float));
    if (!is_wanted(head.id)) {
      file.seekg(num_bytes, std::ios::cur);
      continue;
    }
    std::vector<float> rows(head.count);
    file.read(reinterpret_cast<char*>(rows.data()), num_bytes);
    store.put(head.id, std::move(rows));
  }
  if (file.gcount() != 0) throw InvalidFile(path.string() + ": is cut short; save it again");
}

}  // namespace

void save_references(const ReferenceStore& store, const fs::path& path, const std::string& origin, const RankOfGroup& writer) {
  const fs::path own = file_of_rank(path, writer.rank);
  std::ofstream file(own, std::ios::binary | std::ios::trunc);
  file << kTitle << writer.num_ranks << kAfterRanks << origin << "\n";
  for (const auto& [id, rows] : store.references()) {
    const RecordHead head{id, rows.size()};
    file.write(reinterpret_cast<const char*>(&head), sizeof(head));
    file.write(reinterpret_cast<const char*>(rows.data()), static_cast<std::streamsize>(rows.size() * sizeof(float)));
  }
  file.flush();
  if (!file) throw Error(own.string() + ": cannot be written; check the folder, its permissions and free space");
}

void load_references(ReferenceStore& store, const fs::path& path, const std::string& origin,
                     const std::function<bool(uint64_t id)>& is_wanted) {
  int num_ranks = 1;
  for (int rank = 0; rank < num_ranks; ++rank) {
    const fs::path one = file_of_rank(path, rank);
    std::ifstream file(one, std::ios::binary);
    if (!file) throw InvalidFile(one.string() + ": cannot be opened; check the path of --reference");
    num_ranks = read_title(file, one, origin);
    read_records(file, one, is_wanted, store);
  }
}

}  // namespace skipper
