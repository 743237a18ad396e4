// The errors that users, files, devices and networks cause; broken invariants of our own are glog CHECKs instead.
#pragma once

#include <source_location>
#include <stdexcept>
#include <string>

namespace skipper {

// Base of all operating errors. `what()` is one line a user can act on: what was wrong, where, what to do.
class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& message, std::source_location location = std::source_location::current());

  // Where it was thrown ("comm/mpi_communicator.cc:88"); for logs, never for clients.
  const std::string& location() const { return location_; }

 private:
  std::string location_;
};

// A request field, flag or config key with a value we refuse. `param` is the field's path ("messages[1].content");
// `code` is OpenAI's error code where it has one ("context_length_exceeded"), else empty.
class InvalidRequest : public Error {
 public:
  InvalidRequest(const std::string& message, std::string param, std::string code = "",
                 std::source_location location = std::source_location::current());

  const std::string& param() const { return param_; }
  const std::string& code() const { return code_; }

 private:
  std::string param_;
  std::string code_;
};

// A missing, truncated, foreign or unsupported file: model, config, operating point, evaluation data.
class InvalidFile : public Error {
 public:
  using Error::Error;
};

// Wrong use of the command line; exit status 2.
class UsageError : public Error {
 public:
  using Error::Error;
};

// A full queue or an exhausted budget; the same request may succeed later.
class ResourceExhausted : public Error {
 public:
  using Error::Error;
};

// CUDA, cuBLAS or host memory failure.
class DeviceError : public Error {
 public:
  using Error::Error;
};

// MPI or NCCL failure, or a deadline that passed in a collective. The group cannot go on.
class CommError : public Error {
 public:
  using Error::Error;
};

// The work was cancelled by its requester or by shutdown.
class Cancelled : public Error {
 public:
  using Error::Error;
};

}  // namespace skipper
