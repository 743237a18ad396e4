// How many bytes of request bodies may be in memory at once, over all connections.
#pragma once

#include <cstddef>
#include <optional>
#include <utility>

namespace skipper {

// The I/O thread only.
class BodyBudget {
 public:
  explicit BodyBudget(size_t max_bytes) : free_bytes_(max_bytes) {}

  // Gives its bytes back when it goes.
  class Reservation {
   public:
    Reservation() = default;
    Reservation(BodyBudget& budget, size_t bytes) : budget_(&budget), bytes_(bytes) {}
    Reservation(Reservation&& other) noexcept : budget_(std::exchange(other.budget_, nullptr)), bytes_(other.bytes_) {}
    Reservation& operator=(Reservation&& other) noexcept {
      std::swap(budget_, other.budget_);
      std::swap(bytes_, other.bytes_);
      return *this;
    }
    ~Reservation() {
      if (budget_ != nullptr) budget_->free_bytes_ += bytes_;
    }

   private:
    BodyBudget* budget_ = nullptr;
    size_t bytes_ = 0;
  };

  // Nothing when so many bytes are not free.
  std::optional<Reservation> reserve(size_t bytes) {
    if (bytes > free_bytes_) return std::nullopt;
    free_bytes_ -= bytes;
    return Reservation(*this, bytes);
  }

 private:
  size_t free_bytes_;
};

}  // namespace skipper
