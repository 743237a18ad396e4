#include "base/error.h"

#include <string_view>
#include <utility>

namespace skipper {
namespace {

// "/any/where/comm/mpi_communicator.cc" → "comm/mpi_communicator.cc": the last folder and the file name.
std::string_view short_file_name(std::string_view path) {
  const size_t file = path.rfind('/');
  if (file == std::string_view::npos || file == 0) return path;
  const size_t folder = path.rfind('/', file - 1);
  return folder == std::string_view::npos ? path : path.substr(folder + 1);
}

}  // namespace

Error::Error(const std::string& message, std::source_location location)
    : std::runtime_error(message),
      location_(std::string(short_file_name(location.file_name())) + ":" + std::to_string(location.line())) {}

InvalidRequest::InvalidRequest(const std::string& message, std::string param, std::string code,
                               std::source_location location)
    : Error(message, location), param_(std::move(param)), code_(std::move(code)) {}

}  // namespace skipper
