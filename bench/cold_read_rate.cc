#include "bench/cold_read_rate.h"

#include <glog/logging.h>

#include <algorithm>
#include <atomic>
#include <chrono>

#include "kernels/cpu/simd.h"

namespace skipper {
namespace {

constexpr int64_t kNumBytes = int64_t{256} << 20;
constexpr int64_t kWindowBytes = int64_t{2} << 20;  // a weight of 1024 x 1024 in BF16
constexpr int64_t kPieceBytes = int64_t{128} << 10;
constexpr int64_t kWindowsPerCall = 32;

struct ReadKernel {
  static constexpr bool has_code_for(cpu::Isa isa) {
    return isa == cpu::Isa::kPortable || isa == cpu::Isa::kAvx2 || isa == cpu::Isa::kAvx512;
  }
  template <cpu::Isa kIsa>
  [[gnu::always_inline]] static void run(const std::byte* piece, uint64_t* total) {
    using Words = typename cpu::Registers<cpu::register_width(kIsa)>::Words;
    constexpr int kSums = 8;
    Words sums[kSums];
    for (int i = 0; i < kSums; ++i) sums[i] = Words{};
    for (int64_t offset = 0; offset < kPieceBytes; offset += kSums * int64_t{sizeof(Words)}) {
      for (int i = 0; i < kSums; ++i) {
        Words words;
        __builtin_memcpy(&words, piece + offset + i * int64_t{sizeof(Words)}, sizeof(words));
        sums[i] = sums[i] + words;
      }
    }
    for (int i = 1; i < kSums; ++i) sums[0] = sums[0] + sums[i];
    *total = 0;
    for (int lane = 0; lane < cpu::register_width(kIsa); ++lane) *total += sums[0][lane];
  }
};

}  // namespace

ColdReadRate::ColdReadRate(ThreadPool& workers) : workers_(workers), memory_(Tensor::empty({kNumBytes / 4}, DType::kI32)) {
  std::ranges::fill(memory_.span<int32_t>(), 1);
}

void ColdReadRate::measure() {
  for (int64_t i = 0; i < kWindowsPerCall; ++i) {
    const double seconds = seconds_of_window(next_window_);
    best_ = std::max(best_, static_cast<double>(kWindowBytes) / seconds);
    next_window_ = (next_window_ + 1) % (kNumBytes / kWindowBytes);
  }
}

double ColdReadRate::seconds_of_window(int64_t window) {
  const std::byte* begin = memory_.bytes() + window * kWindowBytes;
  const auto read = cpu::compiled_for<ReadKernel, const std::byte*, uint64_t*>(cpu::best_isa());
  std::atomic<uint64_t> total{0};
  const auto start = std::chrono::steady_clock::now();
  workers_.parallel_for(kWindowBytes / kPieceBytes, [&](int64_t piece) {
    uint64_t sum = 0;
    read(begin + piece * kPieceBytes, &sum);
    total.fetch_add(sum, std::memory_order_relaxed);
  });
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  CHECK_EQ(total.load(), static_cast<uint64_t>(kWindowBytes / 4)) << "not everything was read";
  return elapsed.count();
}

}  // namespace skipper
