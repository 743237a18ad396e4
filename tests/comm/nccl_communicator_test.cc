// Runs under mpirun: every rank runs every test.
#include "comm/nccl_communicator.h"

#include <cuda_runtime_api.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "tests/support/nccl_test.h"

namespace skipper {
namespace {

using testing::HasSubstr;

class NcclRanks : public NcclTest {
 protected:
  static constexpr int64_t kSlotBytes = 40000;

  // Sizes from nothing to some pages, different each way; nothing from a rank to itself where its number is odd.
  static size_t part_bytes(int source, int destination) {
    const int number = source * 5 + destination * 3;
    return number % 4 == 3 ? 0 : static_cast<size_t>(number * 1237 + 1);
  }
  static uint8_t part_value(int source, int destination) { return static_cast<uint8_t>(source * 16 + destination + 1); }

  // One slot for each rank, filled with what is meant for it.
  Tensor parts_to_send() {
    Tensor parts = Tensor::zeros({size(), kSlotBytes}, DType::kU8);
    for (int peer = 0; peer < size(); ++peer) std::fill_n(parts.row<uint8_t>(peer), kSlotBytes, part_value(rank(), peer));
    return to_gpu(parts);
  }
  static std::vector<PeerTransfer> transfers(const Tensor& send, Tensor& receive) {
    std::vector<PeerTransfer> all;
    for (int peer = 0; peer < size(); ++peer) {
      all.push_back({.peer = peer,
                     .send = {send.bytes() + peer * kSlotBytes, part_bytes(rank(), peer)},
                     .receive = {receive.bytes() + peer * kSlotBytes, part_bytes(peer, rank())}});
    }
    return all;
  }
  void expect_received(const Tensor& receive) {
    const Tensor received = to_host(receive);
    for (int peer = 0; peer < size(); ++peer) {
      const uint8_t* slot = received.row<uint8_t>(peer);
      const auto count = static_cast<int64_t>(part_bytes(peer, rank()));
      EXPECT_EQ(std::count(slot, slot + kSlotBytes, part_value(peer, rank())), count) << "from rank " << peer;
      EXPECT_EQ(std::count(slot + count, slot + kSlotBytes, 0), kSlotBytes - count) << "from rank " << peer;
    }
  }
};

TEST_F(NcclRanks, ExchangeMovesPartsOfAllSizes) {
  const Tensor send = parts_to_send();
  Tensor receive = Tensor::zeros(send.shape(), DType::kU8, device());
  nccl().exchange(transfers(send, receive), stream());
  nccl().synchronize(stream());
  expect_received(receive);
}

TEST_F(NcclRanks, ExchangeOfNothingCompletes) {
  nccl().exchange({}, stream());
  nccl().synchronize(stream());
  const Tensor send = parts_to_send();
  Tensor receive = Tensor::zeros(send.shape(), DType::kU8, device());
  std::vector<PeerTransfer> empty = transfers(send, receive);
  for (PeerTransfer& transfer : empty) transfer.send.num_bytes = transfer.receive.num_bytes = 0;
  nccl().exchange(empty, stream());
  nccl().synchronize(stream());
  const Tensor received = to_host(receive);
  EXPECT_EQ(std::ranges::count(received.span<uint8_t>(), 0), received.num_elements());
}

TEST_F(NcclRanks, SeveralPartsForOneRankArriveInTheirOrder) {
  constexpr int64_t kParts = 3, kBytes = 256;
  Tensor parts = Tensor::empty({size(), kParts, kBytes}, DType::kU8);
  for (int64_t i = 0; i < size() * kParts; ++i) {
    std::fill_n(parts.data<uint8_t>() + i * kBytes, kBytes, static_cast<uint8_t>(rank() * kParts + i % kParts));
  }
  const Tensor send = to_gpu(parts);
  Tensor receive = Tensor::zeros(parts.shape(), DType::kU8, device());
  std::vector<PeerTransfer> transfers;
  for (int64_t i = 0; i < size() * kParts; ++i) {
    const int64_t at = i * kBytes;
    transfers.push_back({static_cast<int>(i / kParts), {send.bytes() + at, kBytes}, {receive.bytes() + at, kBytes}});
  }
  nccl().exchange(transfers, stream());
  nccl().synchronize(stream());
  const Tensor received = to_host(receive);
  for (int64_t i = 0; i < size() * kParts; ++i) {
    const uint8_t* part = received.data<uint8_t>() + i * kBytes;
    EXPECT_EQ(std::count(part, part + kBytes, i), kBytes) << "part " << i;
  }
}

TEST_F(NcclRanks, ACapturedExchangeMovesWhatTheBuffersHoldWhenItRuns) {
  const Tensor send = parts_to_send();
  Tensor stale = Tensor::zeros(send.shape(), DType::kU8, device());
  Tensor receive = Tensor::zeros(send.shape(), DType::kU8, device());
  const auto native = static_cast<cudaStream_t>(stream().native());
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t captured = nullptr;
  ASSERT_EQ(cudaStreamBeginCapture(native, cudaStreamCaptureModeThreadLocal), cudaSuccess);
  nccl().exchange(transfers(stale, receive), stream());
  ASSERT_EQ(cudaStreamEndCapture(native, &graph), cudaSuccess);
  ASSERT_EQ(cudaGraphInstantiate(&captured, graph, 0), cudaSuccess);
  for (int replay = 0; replay < 3; ++replay) {
    copy_bytes({send.bytes(), device(), stale.bytes(), device(), send.num_bytes()}, stream());
    ASSERT_EQ(cudaGraphLaunch(captured, native), cudaSuccess);
    nccl().synchronize(stream());
    expect_received(receive);
    fill_zero(stale.bytes(), stale.num_bytes(), device());
    fill_zero(receive.bytes(), receive.num_bytes(), device());
  }
  cudaGraphExecDestroy(captured);
  cudaGraphDestroy(graph);
}

TEST_F(NcclRanks, AllGatherIsInRankOrder) {
  Tensor own = Tensor::empty({5}, DType::kI32);
  std::ranges::fill(own.span<int32_t>(), rank() * 10);
  Tensor gathered = Tensor::zeros({size(), 5}, DType::kI32, device());
  nccl().all_gather(to_gpu(own), gathered, stream());
  nccl().synchronize(stream());
  const Tensor received = to_host(gathered);
  for (int peer = 0; peer < size(); ++peer) {
    const int32_t* part = received.row<int32_t>(peer);
    EXPECT_EQ(std::count(part, part + 5, peer * 10), 5);
  }
}

TEST_F(NcclRanks, AllReduceSumAddsUpAllRanks) {
  Tensor own = Tensor::empty({3}, DType::kF32);
  std::ranges::fill(own.span<float>(), static_cast<float>(rank() + 1));
  Tensor values = to_gpu(own);
  nccl().all_reduce_sum(values, stream());
  nccl().synchronize(stream());
  const Tensor sums = to_host(values);
  const float expected = static_cast<float>(size() * (size() + 1)) / 2.0f;
  for (const float sum : sums.span<float>()) EXPECT_EQ(sum, expected);
}

TEST_F(NcclRanks, ARankThatStaysAwayIsReportedByTheDeadline) {
  if (size() == 1) GTEST_SKIP() << "needs another rank to stay away";
  NcclCommunicator doomed(control(), device(), {std::chrono::seconds(8)});
  if (rank() == 0) {
    doomed.set_context({.step = 7, .layer = 3, .phase = "dispatch"});
    const Tensor send = parts_to_send();
    Tensor receive = Tensor::zeros(send.shape(), DType::kU8, device());
    const std::vector<PeerTransfer> one = {{1, {send.bytes(), 100}, {receive.bytes(), 100}}};
    const auto message_of = [](const auto& operation) -> std::string {
      try {
        operation();
      } catch (const CommError& error) {
        return error.what();
      }
      return "";
    };
    doomed.exchange(one, stream());
    EXPECT_THAT(message_of([&] { doomed.synchronize(stream()); }),
                HasSubstr("rank 0: step 7, layer 3, dispatch: synchronize did not complete within 8000 ms"));
    EXPECT_THAT(message_of([&] { doomed.exchange(one, stream()); }), HasSubstr("exchange: the group was aborted"));
  } else {
    doomed.abort("rank 0 gave up, as this test wants");
  }
  Stream host;
  control().barrier(host);
}

}  // namespace
}  // namespace skipper
