#include "bench/arithmetic_peak.h"

#include <glog/logging.h>

#include <chrono>
#include <cmath>
#include <cstring>

#include "kernels/cpu/simd.h"

namespace skipper {
namespace {

using cpu::Isa;

constexpr int64_t kSteps = 400000;
// Independent sums in registers: more than latency times instructions per cycle, few enough not to be spilled.
constexpr int num_sums(Isa isa) { return isa >= Isa::kAvx512 ? 24 : 12; }

template <Isa kIsa>
using Floats = typename cpu::Registers<cpu::register_width(kIsa)>::Floats;

template <typename Vector>
[[gnu::always_inline]] inline Vector load(const float* source) {
  Vector vector;
  __builtin_memcpy(&vector, source, sizeof(vector));
  return vector;
}

// add(sum, a, b) in num_sums chains; the total keeps the compiler from leaving them out.
template <Isa kIsa, typename Add>
[[gnu::always_inline]] inline void run_chains(const float* operands, float* total, const Add& add) {
  constexpr int kSums = num_sums(kIsa);
  using Vector = Floats<kIsa>;
  const Vector a = load<Vector>(operands), b = load<Vector>(operands + 16);
  Vector sums[kSums];
  for (int i = 0; i < kSums; ++i) sums[i] = Vector{};
  for (int64_t step = 0; step < kSteps; ++step) {
    for (int i = 0; i < kSums; ++i) sums[i] = add(sums[i], a, b);
  }
  Vector sum = sums[0];
  for (int i = 1; i < kSums; ++i) sum = sum + sums[i];
  __builtin_memcpy(total, &sum, sizeof(sum));
}

struct FmaChains {
  static constexpr bool has_code_for(Isa isa) { return isa == Isa::kPortable || isa == Isa::kAvx2 || isa == Isa::kAvx512; }
  template <Isa kIsa>
  [[gnu::always_inline]] static void run(const float* operands, float* total) {
    using Vector = Floats<kIsa>;
    run_chains<kIsa>(operands, total, [](const Vector& sum, const Vector& a, const Vector& b) __attribute__((always_inline)) {
      return cpu::fused_multiply_add<cpu::register_width(kIsa)>(a, b, sum);
    });
  }
};

#if defined(__x86_64__)
struct Bf16Chains {
  static constexpr bool has_code_for(Isa isa) { return isa == Isa::kAvx512Bf16; }
  template <Isa kIsa>
  [[gnu::always_inline]] static void run(const float* operands, float* total) {
    typedef short Shorts __attribute__((vector_size(64)));
    using Vector = Floats<kIsa>;
    run_chains<kIsa>(operands, total, [](const Vector& sum, const Vector& a, const Vector& b) __attribute__((always_inline)) {
      return __builtin_ia32_dpbf16ps_v16sf(sum, reinterpret_cast<Shorts>(a), reinterpret_cast<Shorts>(b));
    });
  }
};

struct ByteChains {
  template <Isa kIsa>
  [[gnu::always_inline]] static void run(const float* operands, float* total) {
    using Vector = Floats<kIsa>;
    run_chains<kIsa>(operands, total, [](const Vector& sum, const Vector& a, const Vector& b) __attribute__((always_inline)) {
      if constexpr (kIsa >= Isa::kAvx512) {
        using Ints = cpu::Registers<16>::Ints;
        return reinterpret_cast<Vector>(__builtin_ia32_vpdpbusd_v16si(
            reinterpret_cast<Ints>(sum), reinterpret_cast<Ints>(a), reinterpret_cast<Ints>(b)));
      } else {
        using Ints = cpu::Registers<8>::Ints;
        return reinterpret_cast<Vector>(__builtin_ia32_vpdpbusd_v8si(
            reinterpret_cast<Ints>(sum), reinterpret_cast<Ints>(a), reinterpret_cast<Ints>(b)));
      }
    });
  }
};
#endif

struct Chains {
  const char* instruction;
  void (*run)(const float*, float*);
  int operations_per_lane;  // of 32 bits
};

Chains chains_for(ActivationFormat activations, Isa isa) {
#if defined(__x86_64__)
  if (activations == ActivationFormat::kBF16 && isa >= Isa::kAvx512Bf16) {
    return {"vdpbf16ps zmm", cpu::compiled_for_avx512_bf16<Bf16Chains, const float*, float*>, 4};
  }
  if (activations == ActivationFormat::kInt8 && isa >= Isa::kAvx512Vnni) {
    return {"vpdpbusd zmm", cpu::compiled_for_avx512_vnni<ByteChains, const float*, float*>, 8};
  }
  if (activations == ActivationFormat::kInt8 && isa == Isa::kAvx2Vnni) {
    return {"vpdpbusd ymm", cpu::compiled_for_avx2_vnni<ByteChains, const float*, float*>, 8};
  }
#endif
  const char* name = isa >= Isa::kAvx512 ? "vfmadd zmm" : (isa >= Isa::kAvx2 ? "vfmadd ymm" : "multiply, add");
  return {name, cpu::compiled_for<FmaChains, const float*, float*>(isa), 2};
}

}  // namespace

ArithmeticPeak measure_arithmetic_peak(ActivationFormat activations, Isa isa) {
  constexpr int kRuns = 5;
  const Chains chains = chains_for(activations, isa);
  float operands[32];
  for (float& operand : operands) operand = 0.125f;
  alignas(64) float total[16] = {};
  double best_seconds = INFINITY;
  for (int run = 0; run < kRuns; ++run) {
    const auto start = std::chrono::steady_clock::now();
    chains.run(operands, total);
    best_seconds = std::min(best_seconds, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  CHECK(total[0] != 0.0f) << "the chains of " << chains.instruction << " came to nothing";
  const double num_lanes = static_cast<double>(kSteps) * num_sums(isa) * cpu::register_width(isa);
  return {chains.instruction, num_lanes * chains.operations_per_lane / best_seconds};
}

}  // namespace skipper
