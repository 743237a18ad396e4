#include "residency/async_reader.h"

#include <glog/logging.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <utility>

#include "base/error.h"

namespace skipper {
namespace {

using Clock = std::chrono::steady_clock;

// Large enough for the full rate of a disk, small enough that a demand does not wait long behind foresight.
constexpr size_t kPieceBytes = size_t{512} << 10;
constexpr size_t kForeseenPieces = 2;
constexpr int kFileEnded = -1;

std::unique_ptr<ReadChannel> make_channel(const DirectFile& file, ReadMethod method) {
  if (method == ReadMethod::kBlocking) return make_blocking_channel();
  std::string reason;
  if (auto channel = make_io_uring_channel(reason)) return channel;
  LOG(WARNING) << file.path().string() << ": io_uring is not to be had (" << reason << "); read by pread on a thread";
  return make_blocking_channel();
}

}  // namespace

AsyncReader::AsyncReader(const DirectFile& file, ReadMethod method)
    : file_(file), channel_(make_channel(file, method)), thread_([this] { run(); }) {}

AsyncReader::~AsyncReader() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  channel_->wake();
  thread_.join();
}

uint64_t AsyncReader::start(const ReadRequest& request, ReadUrgency urgency) {
  CHECK(request.offset % kDirectAlignment == 0 && request.num_bytes % kDirectAlignment == 0 && request.num_bytes > 0);
  uint64_t ticket = 0;
  {
    std::lock_guard lock(mutex_);
    ticket = ++last_ticket_;
    reads_[ticket] = {.request = request, .urgency = urgency};
    (urgency == ReadUrgency::kDemand ? demands_ : foreseen_).push_back(ticket);
  }
  channel_->wake();
  return ticket;
}

void AsyncReader::hasten(uint64_t ticket) {
  {
    std::lock_guard lock(mutex_);
    Read& read = reads_.at(ticket);
    if (read.urgency == ReadUrgency::kDemand) return;
    read.urgency = ReadUrgency::kDemand;
    if (std::erase(foreseen_, ticket) == 0) return;  // all of it is under way
    demands_.push_back(ticket);
  }
  channel_->wake();
}

bool AsyncReader::has_ended(uint64_t ticket) const {
  std::lock_guard lock(mutex_);
  return reads_.at(ticket).is_over();
}

void AsyncReader::wait(uint64_t ticket) {
  std::unique_lock lock(mutex_);
  const auto found = reads_.find(ticket);
  ended_.wait(lock, [&] { return found->second.is_over(); });
  const Read read = found->second;
  reads_.erase(found);
  if (read.error == 0) return;
  const std::string reason = read.error == kFileEnded ? "the file ends before" : std::strerror(read.error);
  throw InvalidFile(file_.path().string() + ": reading " + std::to_string(read.request.num_bytes) + " bytes at " +
                    std::to_string(read.request.offset) + " failed: " + reason + "; check the disk, then remove the file");
}

void AsyncReader::cancel(uint64_t ticket) {
  std::unique_lock lock(mutex_);
  std::erase(demands_, ticket);
  std::erase(foreseen_, ticket);
  const auto found = reads_.find(ticket);
  ended_.wait(lock, [&] { return found->second.num_pieces == 0; });
  reads_.erase(found);
}

ReadCounters AsyncReader::counters() const {
  std::lock_guard lock(mutex_);
  return counters_;
}

void AsyncReader::run() {
  while (start_pieces()) {
    const auto begin = Clock::now();
    const bool was_busy = !pieces_.empty();  // only this thread changes it
    EndedPiece ended;
    const bool has_ended = channel_->wait(ended);
    {
      std::lock_guard lock(mutex_);
      if (was_busy) counters_.busy_seconds += std::chrono::duration<double>(Clock::now() - begin).count();
      if (has_ended) note_end(ended);
    }
    ended_.notify_all();
  }
}

// As many as the disk should have now. False: the reader ends, and nothing is under way.
bool AsyncReader::start_pieces() {
  std::vector<ReadPiece> started;
  {
    std::lock_guard lock(mutex_);
    if (stopping_) {
      demands_.clear();
      foreseen_.clear();
      if (pieces_.empty()) return false;
    }
    std::swap(started, interrupted_);
    for (uint64_t ticket = next_ticket(); ticket != 0; ticket = next_ticket()) {
      Read& read = reads_.at(ticket);
      const size_t size = std::min(kPieceBytes, read.request.num_bytes - read.num_started);
      const ReadPiece piece{file_.descriptor(), read.request.offset + read.num_started, size,
                            read.request.destination + read.num_started, ++last_tag_};
      read.num_started += size;
      ++read.num_pieces;
      if (read.num_started == read.request.num_bytes) finish(ticket);
      pieces_[piece.tag] = {ticket, piece};
      started.push_back(piece);
    }
  }
  for (const ReadPiece& piece : started) channel_->start(piece);
  return true;
}

// The read that the next piece belongs to; 0: none may start.
uint64_t AsyncReader::next_ticket() {
  if (!demands_.empty()) return may_start(ReadUrgency::kDemand) ? demands_.front() : 0;
  if (!foreseen_.empty()) return may_start(ReadUrgency::kForesight) ? foreseen_.front() : 0;
  return 0;
}

bool AsyncReader::may_start(ReadUrgency urgency) const {
  const auto depth = static_cast<size_t>(channel_->depth());
  return pieces_.size() < (urgency == ReadUrgency::kDemand ? depth : std::min(depth, kForeseenPieces));
}

// No further piece of it will start.
void AsyncReader::finish(uint64_t ticket) {
  std::erase(demands_, ticket);
  std::erase(foreseen_, ticket);
}

void AsyncReader::note_end(const EndedPiece& ended) {
  const auto found = pieces_.find(ended.tag);
  const Piece piece = found->second;
  pieces_.erase(found);
  if (ended.num_bytes > 0) counters_.num_bytes += ended.num_bytes;
  if (go_on(piece, ended)) return;
  Read& read = reads_.at(piece.ticket);
  --read.num_pieces;
  if (ended.num_bytes == static_cast<int64_t>(piece.read.num_bytes)) return;
  // A record is written whole: a short read is a file that was cut off, or a disk in trouble.
  read.error = ended.num_bytes < 0 ? static_cast<int>(-ended.num_bytes) : kFileEnded;
  finish(piece.ticket);
}

// Systems may end a read early for no fault of the file; the rest of the piece is started once more.
bool AsyncReader::go_on(const Piece& piece, const EndedPiece& ended) {
  const auto count = static_cast<size_t>(std::max<int64_t>(ended.num_bytes, 0));
  const bool is_part = count > 0 && count < piece.read.num_bytes && count % kDirectAlignment == 0;
  if (!is_part && ended.num_bytes != -EINTR && ended.num_bytes != -EAGAIN) return false;
  ReadPiece rest = piece.read;
  rest.offset += count;
  rest.destination += count;
  rest.num_bytes -= count;
  rest.tag = ++last_tag_;
  pieces_[rest.tag] = {piece.ticket, rest};
  interrupted_.push_back(rest);
  return true;
}

}  // namespace skipper
