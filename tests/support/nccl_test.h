// A fixture for tests of GPU ranks under mpirun: NCCL over all of them, or a visible skip with the reason.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>

#include "base/error.h"
#include "comm/mpi_communicator.h"
#include "comm/nccl_communicator.h"
#include "tests/support/mpi_test_main.h"

namespace skipper {

// The group is opened once for all tests of the program, since joining takes a second. Ranks may share GPUs.
class NcclTest : public testing::Test {
 public:
  static void SetUpTestSuite() {
    control_ = std::make_unique<MpiCommunicator>(test_mpi_runtime(), CommConfig{std::chrono::seconds(60)}, "nccl-test");
    if (num_gpus() == 0) {
      reason_to_skip_ = "no GPU in this machine";
      return;
    }
    try {
      nccl_ = std::make_unique<NcclCommunicator>(*control_, device(), CommConfig{std::chrono::seconds(60)});
    } catch (const CommError& error) {
      reason_to_skip_ = error.what();
      if (reason_to_skip_.find("share a GPU") == std::string::npos) throw;
    }
  }
  static void TearDownTestSuite() {
    nccl_.reset();
    control_.reset();
  }

 protected:
  void SetUp() override {
    if (nccl_ == nullptr) GTEST_SKIP() << reason_to_skip_;
    stream_ = std::make_unique<Stream>(device());
  }

  static Device device() { return Device::cuda(test_mpi_runtime().node_rank() % num_gpus()); }
  static Communicator& control() { return *control_; }
  static NcclCommunicator& nccl() { return *nccl_; }
  static int rank() { return nccl_->rank(); }
  static int size() { return nccl_->size(); }
  Stream& stream() { return *stream_; }

  Tensor to_gpu(const Tensor& host) { return copied(host, device()); }
  Tensor to_host(const Tensor& gpu) { return copied(gpu, Device::host()); }

 private:
  Tensor copied(const Tensor& from, Device to) {
    Tensor copy = Tensor::empty(from.shape(), from.dtype(), to);
    copy_bytes({from.bytes(), from.device(), copy.bytes(), to, from.num_bytes()}, stream());
    stream().synchronize();
    return copy;
  }

  static inline std::unique_ptr<MpiCommunicator> control_;
  static inline std::unique_ptr<NcclCommunicator> nccl_;
  static inline std::string reason_to_skip_;
  std::unique_ptr<Stream> stream_;
};

}  // namespace skipper
