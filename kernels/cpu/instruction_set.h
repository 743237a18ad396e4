// The instruction sets that kernels are compiled for, and the one choice among them at run time.
//
// A kernel is an always-inlined template over the set; everything it calls must be always-inlined too, or it is compiled
// for the portable set:
//
//   struct TileKernel {
//     static constexpr bool has_code_for(Isa isa) { return isa == Isa::kPortable || ...; }
//     template <Isa kIsa>
//     [[gnu::always_inline]] static void run(const Operands& operands);
//   };
//   void (*run)(const Operands&) = compiled_for<TileKernel, const Operands&>(best_isa());
#pragma once

#include <string_view>
#include <vector>

namespace skipper::cpu {

// In ascending order of preference. Code for kPortable, kAvx2 and kAvx512 must exist for every kernel, so that the next
// lower set with code is one that the CPU has.
enum class Isa {
  kPortable,    // SSE2, NEON or whatever the compiler's baseline is
  kAvx2,        // and FMA
  kAvx2Vnni,    // and AVX-VNNI: vpdpbusd on 256 bits
  kAvx512,      // F, BW, VL, DQ
  kAvx512Vnni,  // and VNNI: vpdpbusd
  kAvx512Bf16,  // and VNNI and BF16: vpdpbusd, vdpbf16ps
};

std::string_view name_of(Isa isa);

// The best set this CPU offers, asked once per process, unless an IsaOverride is alive.
Isa best_isa();

// All sets this CPU can run, in ascending order.
std::vector<Isa> available_isas();

// Makes best_isa() answer `isa`, which the CPU must have, for the life of the object and on all threads: for tests and
// benchmarks. Kernels must not run while one is made or dies.
class IsaOverride {
 public:
  explicit IsaOverride(Isa isa);
  ~IsaOverride();
  IsaOverride(const IsaOverride&) = delete;
  IsaOverride& operator=(const IsaOverride&) = delete;
};

// Floats in one register: 4, 8 or 16.
constexpr int register_width(Isa isa) {
  if (isa >= Isa::kAvx512) return 16;
  return isa >= Isa::kAvx2 ? 8 : 4;
}

template <typename Kernel, typename... Args>
void compiled_for_portable(Args... args) {
  Kernel::template run<Isa::kPortable>(args...);
}

#if defined(__x86_64__)
template <typename Kernel, typename... Args>
[[gnu::target("avx2,fma")]] void compiled_for_avx2(Args... args) {
  Kernel::template run<Isa::kAvx2>(args...);
}

template <typename Kernel, typename... Args>
[[gnu::target("avx2,fma,avxvnni")]] void compiled_for_avx2_vnni(Args... args) {
  Kernel::template run<Isa::kAvx2Vnni>(args...);
}

template <typename Kernel, typename... Args>
[[gnu::target("avx512f,avx512bw,avx512vl,avx512dq,fma")]] void compiled_for_avx512(Args... args) {
  Kernel::template run<Isa::kAvx512>(args...);
}

template <typename Kernel, typename... Args>
[[gnu::target("avx512f,avx512bw,avx512vl,avx512dq,fma,avx512vnni")]] void compiled_for_avx512_vnni(Args... args) {
  Kernel::template run<Isa::kAvx512Vnni>(args...);
}

template <typename Kernel, typename... Args>
[[gnu::target("avx512f,avx512bw,avx512vl,avx512dq,fma,avx512vnni,avx512bf16")]] void compiled_for_avx512_bf16(Args... args) {
  Kernel::template run<Isa::kAvx512Bf16>(args...);
}
#endif

// The kernel's code for `isa`, or for the next lower set that it has code for.
template <typename Kernel, typename... Args>
auto compiled_for(Isa isa) -> void (*)(Args...) {
#if defined(__x86_64__)
  if constexpr (Kernel::has_code_for(Isa::kAvx512Bf16)) {
    if (isa >= Isa::kAvx512Bf16) return compiled_for_avx512_bf16<Kernel, Args...>;
  }
  if constexpr (Kernel::has_code_for(Isa::kAvx512Vnni)) {
    if (isa >= Isa::kAvx512Vnni) return compiled_for_avx512_vnni<Kernel, Args...>;
  }
  if (isa >= Isa::kAvx512) return compiled_for_avx512<Kernel, Args...>;
  if constexpr (Kernel::has_code_for(Isa::kAvx2Vnni)) {
    if (isa >= Isa::kAvx2Vnni) return compiled_for_avx2_vnni<Kernel, Args...>;
  }
  if (isa >= Isa::kAvx2) return compiled_for_avx2<Kernel, Args...>;
#endif
  return compiled_for_portable<Kernel, Args...>;
}

// The set whose code compiled_for() takes, for choices that must agree with it.
template <typename Kernel>
constexpr Isa code_used_on(Isa isa) {
  while (isa != Isa::kPortable && !Kernel::has_code_for(isa)) isa = static_cast<Isa>(static_cast<int>(isa) - 1);
  return isa;
}

}  // namespace skipper::cpu
