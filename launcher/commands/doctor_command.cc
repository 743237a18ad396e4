#include "launcher/commands/doctor_command.h"

#include <filesystem>
#include <iostream>
#include <string>
#include <vector>

#include "base/build_config.h"
#include "comm/mpi_runtime.h"
#include "launcher/core_share.h"
#include "launcher/error_line.h"
#include "tensor/device_runtime.h"
#include "tensor/gpu_properties.h"

namespace skipper {
namespace {

constexpr size_t kGigabyte = 1'000'000'000;

std::string cuda_version(int number) { return std::to_string(number / 1000) + "." + std::to_string(number % 1000 / 10); }

// Collects what is wrong while it prints what there is.
class Examination {
 public:
  void examine() {
    show("build", std::string("skipper ") + kVersion + " (" + backend_versions() + ")");
    show("cores", std::to_string(usable_cores().count()) + " usable by this process");
    show_mpi();
    show_driver();
    for (int index = 0; index < num_gpus(); ++index) show_gpu(index);
    show_sharing();
  }

  // The exit status.
  int conclude() const {
    for (const std::string& problem : problems_) std::cout << "problem   " << problem << "\n";
    if (!problems_.empty()) return 1;
    std::cout << "nothing is wrong; the model computes on " << (num_gpus() > 0 ? "GPUs" : "the CPU") << "\n";
    return 0;
  }

 private:
  static void show(const std::string& what, const std::string& value) {
    std::cout << what << std::string(10 - what.size(), ' ') << value << "\n";
  }

  void show_mpi() {
    show("MPI", MpiRuntime::library_version());
    show("ranks", MpiRuntime::launched() ? std::to_string(num_launched_ranks()) + ", of them " +
                                               std::to_string(num_launched_ranks_of_this_host()) + " on this host"
                                         : "1, not started by mpirun or srun");
  }

  void show_driver() {
    const bool has_device_files = std::filesystem::exists("/dev/nvidiactl");
    if constexpr (!kBuiltWithCuda) {
      show("CUDA", "not in this build");
      if (has_device_files) problems_.push_back("this machine has an NVIDIA driver that a build without CUDA does not use; "
                                                "build with -DSKIPPER_WITH_CUDA=ON");
      return;
    }
    const CudaVersions versions = cuda_versions();
    show("driver", versions.driver == 0 ? "none" : "for CUDA up to " + cuda_version(versions.driver));
    if (num_gpus() > 0) return;
    show("GPUs", "none: " + gpu_problem());
    if (versions.driver == 0 && !has_device_files) return;  // a machine without GPUs
    if (versions.driver / 1000 < versions.runtime / 1000) {
      problems_.push_back("the driver knows CUDA up to " + cuda_version(versions.driver) + ", this build has CUDA " +
                          cuda_version(versions.runtime) + "; install a newer driver");
    } else {
      problems_.push_back("the driver offers no GPU (" + gpu_problem() +
                          "); check nvidia-smi, CUDA_VISIBLE_DEVICES and the container's access to /dev/nvidia*");
    }
  }

  void show_gpu(int index) {
    const GpuProperties gpu = gpu_properties(index);
    show("GPU " + std::to_string(index),
         gpu.name + ", " + std::to_string(gpu.free_bytes / kGigabyte) + " of " + std::to_string(gpu.total_bytes / kGigabyte) +
             " GB free, compute capability " + gpu.compute_capability() + ", " + std::to_string(gpu.num_multiprocessors) +
             " multiprocessors");
    if (gpu.runs_our_kernels()) return;
    problems_.push_back("GPU " + std::to_string(index) + " has compute capability " + gpu.compute_capability() +
                        ", but this build's kernels need 9.0 (H100, H200); hide it by CUDA_VISIBLE_DEVICES, or use --device cpu");
  }

  // Ranks take the GPUs of their host in turn.
  void show_sharing() {
    const int ranks = num_launched_ranks_of_this_host(), gpus = num_gpus();
    if (gpus == 0) return;
    const int most = (ranks + gpus - 1) / gpus;
    show("sharing", most > 1 ? "up to " + std::to_string(most) + " ranks on one GPU" : "each rank has a GPU of its own");
    if (most == 1) return;
    problems_.push_back(std::to_string(ranks) + " ranks of this host share " + std::to_string(gpus) +
                        " GPUs, which NCCL refuses or slows down; start at most " + std::to_string(gpus) +
                        " ranks per host, or use --device cpu");
  }

  std::vector<std::string> problems_;
};

}  // namespace

int run_doctor() {
  Examination examination;
  examination.examine();
  return examination.conclude();
}

}  // namespace skipper
