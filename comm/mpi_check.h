// Turns MPI return codes into CommErrors; for the files of this folder that call MPI.
#pragma once

#include <mpi.h>

#include <string>

#include "base/error.h"

namespace skipper {

inline std::string mpi_error_text(int code) {
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  if (MPI_Error_string(code, text, &length) != MPI_SUCCESS) return "MPI error " + std::to_string(code);
  return std::string(text, static_cast<size_t>(length));
}

inline void throw_mpi_error(const char* call, int code) {
  throw CommError(std::string(call) + " failed: " + mpi_error_text(code));
}

}  // namespace skipper

#define MPI_CHECK(call)                                                      \
  do {                                                                       \
    const int mpi_check_code = (call);                                       \
    if (mpi_check_code != MPI_SUCCESS) ::skipper::throw_mpi_error(#call, mpi_check_code); \
  } while (false)
