#include "machine/memory_read_rate.h"

#include <glog/logging.h>

#include <atomic>
#include <chrono>
#include <cstring>

namespace skipper {
namespace {

constexpr int64_t kNumBytes = int64_t{1} << 29;
constexpr int64_t kPieceBytes = int64_t{1} << 20;

// Independent sums, so that loads wait for memory and not for the addition before.
uint64_t sum_of(const std::byte* piece) {
  constexpr int64_t kNumSums = 32;
  uint64_t sums[kNumSums] = {};
  for (int64_t offset = 0; offset < kPieceBytes; offset += kNumSums * int64_t{sizeof(uint64_t)}) {
    uint64_t words[kNumSums];
    std::memcpy(words, piece + offset, sizeof(words));
    for (int64_t i = 0; i < kNumSums; ++i) sums[i] += words[i];
  }
  uint64_t total = 0;
  for (const uint64_t sum : sums) total += sum;
  return total;
}

}  // namespace

MemoryReadRate::MemoryReadRate(ThreadPool& workers) : workers_(workers), memory_(Tensor::empty({kNumBytes}, DType::kU8)) {
  workers_.parallel_for(kNumBytes / kPieceBytes, [this](int64_t piece) {
    std::memset(memory_.bytes() + piece * kPieceBytes, static_cast<int>(piece), kPieceBytes);
  });
  measure_seconds();
}

double MemoryReadRate::measure_seconds() {
  std::atomic<uint64_t> total{0};
  const auto start = std::chrono::steady_clock::now();
  workers_.parallel_for(kNumBytes / kPieceBytes, [&](int64_t piece) {
    total.fetch_add(sum_of(memory_.bytes() + piece * kPieceBytes), std::memory_order_relaxed);
  });
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  CHECK(checksum_ == 0 || checksum_ == total.load()) << "the same memory summed to something else";
  checksum_ = total.load();
  return elapsed.count();
}

}  // namespace skipper
