#include "residency/read_channel.h"

#include <glog/logging.h>
#include <liburing.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <optional>

namespace skipper {
namespace {

constexpr unsigned kRingEntries = 32;
constexpr int kRingDepth = 16;
constexpr uint64_t kWakeTag = ~uint64_t{0};

// A read of an event descriptor waits in the ring beside the pieces: writing to the descriptor ends the wait.
class IoUringChannel final : public ReadChannel {
 public:
  IoUringChannel() = default;
  ~IoUringChannel() override {
    if (is_open_) io_uring_queue_exit(&ring_);
    if (event_ >= 0) ::close(event_);
  }

  // 0, or the errno with a negative sign.
  int open() {
    event_ = ::eventfd(0, EFD_CLOEXEC);
    if (event_ < 0) return -errno;
    const int status = io_uring_queue_init(kRingEntries, &ring_, 0);
    if (status < 0) return status;
    is_open_ = true;
    listen();
    return 0;
  }

  ReadMethod method() const override { return ReadMethod::kIoUring; }
  int depth() const override { return kRingDepth; }

  void start(const ReadPiece& piece) override {
    submit(piece.descriptor, piece.destination, piece.num_bytes, piece.offset, piece.tag);
  }

  bool wait(EndedPiece& ended) override {
    io_uring_cqe* entry = nullptr;
    int status = -EINTR;
    while (status == -EINTR) status = io_uring_wait_cqe(&ring_, &entry);
    CHECK_EQ(status, 0) << "io_uring: " << std::strerror(-status);
    ended = {entry->user_data, entry->res};
    io_uring_cqe_seen(&ring_, entry);
    if (ended.tag != kWakeTag) return true;
    listen();
    return false;
  }

  void wake() override {
    const uint64_t one = 1;
    CHECK_EQ(::write(event_, &one, sizeof(one)), static_cast<ssize_t>(sizeof(one)));
  }

 private:
  void listen() { submit(event_, &event_count_, sizeof(event_count_), 0, kWakeTag); }

  void submit(int descriptor, void* destination, size_t num_bytes, uint64_t offset, uint64_t tag) {
    io_uring_sqe* entry = io_uring_get_sqe(&ring_);
    CHECK(entry != nullptr) << "more reads under way than the ring has room for";
    io_uring_prep_read(entry, descriptor, destination, static_cast<unsigned>(num_bytes), offset);
    io_uring_sqe_set_data64(entry, tag);
    int status = -EINTR;
    while (status == -EINTR || status == -EAGAIN) status = io_uring_submit(&ring_);
    CHECK_GE(status, 0) << "io_uring: " << std::strerror(-status);
  }

  io_uring ring_{};
  int event_ = -1;
  uint64_t event_count_ = 0;
  bool is_open_ = false;
};

class BlockingChannel final : public ReadChannel {
 public:
  ReadMethod method() const override { return ReadMethod::kBlocking; }
  int depth() const override { return 1; }

  void start(const ReadPiece& piece) override {
    CHECK(!piece_);
    piece_ = piece;
  }

  bool wait(EndedPiece& ended) override {
    if (piece_) {
      ended = read(*piece_);
      piece_.reset();
      return true;
    }
    std::unique_lock lock(mutex_);
    woken_.wait(lock, [this] { return is_woken_; });
    is_woken_ = false;
    return false;
  }

  void wake() override {
    {
      std::lock_guard lock(mutex_);
      is_woken_ = true;
    }
    woken_.notify_one();
  }

 private:
  static EndedPiece read(const ReadPiece& piece) {
    ssize_t count = -1;
    do {
      count = ::pread(piece.descriptor, piece.destination, piece.num_bytes, static_cast<off_t>(piece.offset));
    } while (count < 0 && errno == EINTR);
    return {piece.tag, count < 0 ? -errno : count};
  }

  std::optional<ReadPiece> piece_;
  std::mutex mutex_;
  std::condition_variable woken_;
  bool is_woken_ = false;
};

}  // namespace

std::unique_ptr<ReadChannel> make_io_uring_channel(std::string& reason) {
  auto channel = std::make_unique<IoUringChannel>();
  const int status = channel->open();
  if (status == 0) return channel;
  reason = std::strerror(-status);
  return nullptr;
}

std::unique_ptr<ReadChannel> make_blocking_channel() { return std::make_unique<BlockingChannel>(); }

}  // namespace skipper
