// The kernels of a GPU's step, in the shapes of Qwen3-30B-A3B, beside what the GPU can do and what NVIDIA's libraries take.
#include <gflags/gflags.h>

#include <algorithm>
#include <cstdio>
#include <sstream>

#include "base/error.h"
#include "bench/benchmark_flags.h"
#include "bench/gpu_attention_cases.h"
#include "bench/gpu_clock.h"
#include "bench/gpu_product_cases.h"
#include "bench/gpu_row_cases.h"
#include "bench/gpu_sampling_cases.h"

DEFINE_string(formats, "bf16,int8-g64,int4-g64", "weight formats of the products, separated by commas");
DEFINE_string(filter, "", "only cases whose names contain this, such as gate_up, \"bf16 head\" or attention");

namespace skipper::cuda {
namespace {

constexpr char kIntroduction[] =
    "Times matrix products, attention, sampling and the kernels between them on one GPU, each checked first: products against\n"
    "cuBLASLt and cublasGemmGroupedBatchedEx, the others against their definitions. Shares are of the rate of a copy (bytes\n"
    "read and written both counted) and of cuBLASLt's 8192 x 8192 x 8192 product. Medians; weights come from memory, not from\n"
    "caches.\n\n"
    "  gpu_kernel_perf --formats bf16 --filter gate_up\n\n";

constexpr int kRuns = 20;

struct Ceilings {
  double bytes_per_second = 0.0;
  double operations_per_second = 0.0;
};

std::vector<WeightFormat> parse_formats() {
  std::vector<WeightFormat> formats;
  std::istringstream parts(FLAGS_formats);
  for (std::string part; std::getline(parts, part, ',');) formats.push_back(parse_weight_format(part, "flag --formats"));
  return formats;
}

bool is_right(const GpuKernelCase& kernel) {
  const double error = kernel.measure_error();
  if (error <= kernel.allowed_error) return true;  // a NaN is not
  std::printf("%-42s WRONG: error %g is more than %g\n", kernel.name.c_str(), error, kernel.allowed_error);
  return false;
}

// Of launches one after the other, where a graph cannot hold them.
double queued_seconds(const std::function<void(int)>& work, Stream& stream) {
  GpuClock clock(stream);
  for (int i = 0; i < kRuns; ++i) work(i);
  std::vector<double> seconds;
  for (int repeat = 0; repeat < 5; ++repeat) {
    clock.clear();
    clock.mark();
    for (int i = 0; i < kRuns; ++i) work(i);
    clock.mark();
    stream.synchronize();
    seconds.push_back(clock.seconds_after(0) / kRuns);
  }
  return median(seconds);
}

void print_library(const GpuKernelCase& kernel, double seconds, Stream& stream) {
  if (!kernel.library) return;
  const double library = kernel.library_can_be_captured ? graph_seconds(kRuns, kernel.library, stream)
                                                         : queued_seconds(kernel.library, stream);
  std::printf(" | library %9.1f us, %5.2f x", library * 1e6, library / seconds);
}

void measure(const GpuKernelCase& kernel, const Ceilings& ceilings, Stream& stream) {
  const double seconds = graph_seconds(kRuns, kernel.run, stream);
  const double bytes_rate = kernel.num_bytes / seconds, operation_rate = kernel.operations / seconds;
  std::printf("%-42s %9.1f us %6.2f TB/s %4.0f %%", kernel.name.c_str(), seconds * 1e6, bytes_rate * 1e-12,
              100.0 * bytes_rate / ceilings.bytes_per_second);
  if (kernel.operations > 0.0) {
    std::printf(" %7.1f TFLOP/s %4.0f %%", operation_rate * 1e-12, 100.0 * operation_rate / ceilings.operations_per_second);
  }
  print_library(kernel, seconds, stream);
  std::printf("\n");
  std::fflush(stdout);
}

void run() {
  const std::vector<WeightFormat> formats = parse_formats();
  if (num_gpus() == 0) throw DeviceError("no GPU in this machine; gpu_kernel_perf needs one");
  Stream stream(Device::cuda(0));
  const Ceilings ceilings{copy_bytes_per_second(stream), peak_operations_per_second(stream)};
  std::printf("copy %.2f TB/s, cuBLASLt 8192 x 8192 x 8192 %.1f TFLOP/s; bytes: weights of products, keys and values of "
              "attention, rows of the others\n",
              ceilings.bytes_per_second * 1e-12, ceilings.operations_per_second * 1e-12);
  const CaseFilter filter = [](const std::string& name) { return name.find(FLAGS_filter) != std::string::npos; };
  int num_wrong = 0;
  const CaseVisitor visit = [&](const GpuKernelCase& kernel) {
    if (!is_right(kernel)) {
      ++num_wrong;
      return;
    }
    measure(kernel, ceilings, stream);
  };
  visit_dense_cases(formats, filter, visit, stream);
  visit_expert_cases(formats, filter, visit, stream);
  visit_attention_cases(filter, visit, stream);
  visit_row_cases(filter, visit, stream);
  visit_sampling_cases(filter, visit, stream);
  if (num_wrong > 0) throw Error(std::to_string(num_wrong) + " kernels are wrong and were not timed");
}

}  // namespace
}  // namespace skipper::cuda

int main(int argc, char** argv) {
  return skipper::benchmark_main({"gpu_kernel_perf", skipper::cuda::kIntroduction, __FILE__, skipper::cuda::run}, argc, argv);
}
