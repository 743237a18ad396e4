// Carries pieces of reads to the disk and says which have ended: by io_uring, or by blocking reads where that is not allowed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "residency/residency_config.h"

namespace skipper {

struct ReadPiece {
  int descriptor = -1;
  uint64_t offset = 0;
  size_t num_bytes = 0;
  std::byte* destination = nullptr;
  uint64_t tag = 0;  // given back when the piece has ended
};

struct EndedPiece {
  uint64_t tag = 0;
  int64_t num_bytes = 0;  // read; negative: an errno
};

// One thread starts and waits; any thread may wake it.
class ReadChannel {
 public:
  virtual ~ReadChannel() = default;

  virtual ReadMethod method() const = 0;
  // Pieces under way at the same time that are of use.
  virtual int depth() const = 0;
  // No more than depth() at a time.
  virtual void start(const ReadPiece& piece) = 0;
  // Blocks until a piece has ended or wake() was called, perhaps before; true: `ended` is such a piece.
  virtual bool wait(EndedPiece& ended) = 0;
  virtual void wake() = 0;
};

// Null where the system does not allow io_uring, as many containers do not; `reason` says why then.
std::unique_ptr<ReadChannel> make_io_uring_channel(std::string& reason);
std::unique_ptr<ReadChannel> make_blocking_channel();

}  // namespace skipper
