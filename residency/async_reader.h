// Reads of a file that go on while the caller computes: those it waits for first, foreseen ones in what is left of the disk.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "residency/direct_file.h"
#include "residency/read_channel.h"

namespace skipper {

enum class ReadUrgency : uint8_t {
  kDemand,   // somebody waits, or soon will
  kForesight,  // perhaps needed later: starts when no demand is left, a few pieces at a time
};

// The whole record at `offset`; all three are multiples of kDirectAlignment.
struct ReadRequest {
  uint64_t offset = 0;
  size_t num_bytes = 0;
  std::byte* destination = nullptr;
};

// Sums since start.
struct ReadCounters {
  int64_t num_bytes = 0;
  double busy_seconds = 0.0;  // with a piece under way: bytes over these is the disk's rate
};

// One thread of its own does all reading. Callable from one thread.
class AsyncReader {
 public:
  // `file` outlives the reader. kIoUring falls back to kBlocking where it is not allowed, with a warning.
  explicit AsyncReader(const DirectFile& file, ReadMethod method = ReadMethod::kIoUring);
  // Waits for pieces under way, whose memory must not go first.
  ~AsyncReader();
  AsyncReader(const AsyncReader&) = delete;
  AsyncReader& operator=(const AsyncReader&) = delete;

  ReadMethod method() const { return channel_->method(); }

  // A ticket for the read, which ends with wait() or cancel().
  uint64_t start(const ReadRequest& request, ReadUrgency urgency);
  // A foreseen read becomes one that is waited for.
  void hasten(uint64_t ticket);
  bool has_ended(uint64_t ticket) const;
  // Blocks until the read has ended. Throws InvalidFile naming the file when it failed.
  void wait(uint64_t ticket);
  // Reads no further; returns when nothing writes to the destination any more.
  void cancel(uint64_t ticket);

  ReadCounters counters() const;

 private:
  struct Read {
    ReadRequest request;
    ReadUrgency urgency = ReadUrgency::kDemand;
    size_t num_started = 0;  // bytes
    int num_pieces = 0;      // under way
    int error = 0;           // an errno; kFileEnded
    bool is_over() const { return num_pieces == 0 && (error != 0 || num_started == request.num_bytes); }
  };
  struct Piece {
    uint64_t ticket = 0;
    ReadPiece read;
  };

  void run();
  bool start_pieces();
  uint64_t next_ticket();
  bool may_start(ReadUrgency urgency) const;
  void note_end(const EndedPiece& ended);
  bool go_on(const Piece& piece, const EndedPiece& ended);
  void finish(uint64_t ticket);

  const DirectFile& file_;
  std::unique_ptr<ReadChannel> channel_;
  mutable std::mutex mutex_;
  std::condition_variable ended_;
  std::map<uint64_t, Read> reads_;
  std::deque<uint64_t> demands_;
  std::deque<uint64_t> foreseen_;
  std::map<uint64_t, Piece> pieces_;  // by tag, under way
  std::vector<ReadPiece> interrupted_;
  uint64_t last_ticket_ = 0;
  uint64_t last_tag_ = 0;
  ReadCounters counters_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace skipper
