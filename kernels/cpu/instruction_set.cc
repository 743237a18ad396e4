#include "kernels/cpu/instruction_set.h"

#include <glog/logging.h>

#include <algorithm>
#include <atomic>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace skipper::cpu {
namespace {

constexpr int kNoOverride = -1;
std::atomic<int> override_isa{kNoOverride};

#if defined(__x86_64__)
// GCC 12 has no name for this bit in __builtin_cpu_supports.
bool has_avx_vnni() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 && (eax & (1u << 4)) != 0;
}

// __builtin_cpu_supports also asks whether the operating system saves the wide registers. A plain run-time test instead of
// GCC's target_clones, whose resolvers run before the sanitizers are ready.
bool cpu_has(Isa isa) {
  __builtin_cpu_init();
  const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  const bool has_avx512_vnni = has_avx512 && __builtin_cpu_supports("avx512vnni");
  switch (isa) {
    case Isa::kPortable:
      return true;
    case Isa::kAvx2:
      return has_avx2;
    case Isa::kAvx2Vnni:
      return has_avx2 && has_avx_vnni();
    case Isa::kAvx512:
      return has_avx512;
    case Isa::kAvx512Vnni:
      return has_avx512_vnni;
    case Isa::kAvx512Bf16:
      return has_avx512_vnni && __builtin_cpu_supports("avx512bf16");
  }
  return false;
}
#else
bool cpu_has(Isa isa) { return isa == Isa::kPortable; }
#endif

}  // namespace

std::string_view name_of(Isa isa) {
  switch (isa) {
    case Isa::kPortable:
      return "portable";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx2Vnni:
      return "avx2_vnni";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAvx512Vnni:
      return "avx512_vnni";
    case Isa::kAvx512Bf16:
      return "avx512_bf16";
  }
  return "?";
}

std::vector<Isa> available_isas() {
  std::vector<Isa> isas;
  for (const Isa isa :
       {Isa::kPortable, Isa::kAvx2, Isa::kAvx2Vnni, Isa::kAvx512, Isa::kAvx512Vnni, Isa::kAvx512Bf16}) {
    if (cpu_has(isa)) isas.push_back(isa);
  }
  return isas;
}

Isa best_isa() {
  static const Isa best = available_isas().back();
  const int forced = override_isa.load(std::memory_order_relaxed);
  return forced == kNoOverride ? best : static_cast<Isa>(forced);
}

IsaOverride::IsaOverride(Isa isa) {
  CHECK(cpu_has(isa)) << "this CPU has no " << name_of(isa);
  CHECK_EQ(override_isa.exchange(static_cast<int>(isa)), kNoOverride) << "instruction set overridden twice";
}

IsaOverride::~IsaOverride() { override_isa = kNoOverride; }

}  // namespace skipper::cpu
