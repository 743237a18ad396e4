#include "kernels/cpu/simd.h"

namespace skipper::cpu {
namespace {

// __builtin_cpu_supports also asks whether the operating system saves the wide registers. A plain run-time test instead of
// GCC's target_clones, whose resolvers run before the sanitizers are ready.
Isa detect_isa() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool has_avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  const bool has_fma = __builtin_cpu_supports("fma");
  if (has_avx512 && has_fma) return Isa::kAvx512;
  if (__builtin_cpu_supports("avx2") && has_fma) return Isa::kAvx2;
#endif
  return Isa::kPortable;
}

}  // namespace

Isa best_isa() {
  static const Isa isa = detect_isa();
  return isa;
}

}  // namespace skipper::cpu
