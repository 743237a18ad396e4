// A temporary copy of a checkpoint directory whose JSON a test may change.
#pragma once

#include <filesystem>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace skipper {

// Weights are linked, not copied. Removed with the object.
class EditedCheckpoint {
 public:
  explicit EditedCheckpoint(const std::filesystem::path& original);
  ~EditedCheckpoint();
  EditedCheckpoint(const EditedCheckpoint&) = delete;
  EditedCheckpoint& operator=(const EditedCheckpoint&) = delete;

  const std::filesystem::path& path() const { return path_; }

  // Rewrites one JSON file of the directory.
  EditedCheckpoint& edit(const std::string& file, const std::function<void(nlohmann::json&)>& change);
  EditedCheckpoint& remove(const std::string& file);

 private:
  std::filesystem::path path_;
};

}  // namespace skipper
