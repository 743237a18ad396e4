#include "tests/model/edited_checkpoint.h"

#include <unistd.h>

#include <atomic>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/json_fields.h"

namespace skipper {

namespace fs = std::filesystem;

EditedCheckpoint::EditedCheckpoint(const fs::path& original) {
  static std::atomic<int> count = 0;
  path_ = fs::temp_directory_path() / ("skipper-model-" + std::to_string(getpid()) + "-" + std::to_string(count++));
  fs::create_directories(path_);
  for (const fs::directory_entry& entry : fs::directory_iterator(original)) {
    const fs::path target = path_ / entry.path().filename();
    if (entry.path().extension() == ".json") fs::copy_file(entry.path(), target);
    if (entry.path().extension() == ".safetensors") fs::create_symlink(fs::absolute(entry.path()), target);
  }
}

EditedCheckpoint::~EditedCheckpoint() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

EditedCheckpoint& EditedCheckpoint::edit(const std::string& file, const std::function<void(nlohmann::json&)>& change) {
  nlohmann::json document = read_json_file(path_ / file);
  change(document);
  std::ofstream(path_ / file) << document.dump(1);
  return *this;
}

EditedCheckpoint& EditedCheckpoint::remove(const std::string& file) {
  fs::remove(path_ / file);
  return *this;
}

}  // namespace skipper
