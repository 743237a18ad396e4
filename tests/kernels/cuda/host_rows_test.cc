// Rows of the host's experts come out in order and results go back to their places, whatever the counts and passes.
#include "kernels/cuda/host_rows.h"

#include <numeric>

#include "kernels/elementwise.h"
#include "tensor/cuda/pinned_tensor.h"
#include "tests/kernels/cuda/gpu_test.h"

namespace skipper::cuda {
namespace {

struct Case {
  std::vector<int32_t> counts;   // rows of each expert
  std::vector<int32_t> experts;  // of the host
  int64_t width;
};

class HostRows : public GpuTest, public testing::WithParamInterface<Case> {
 protected:
  static Tensor integers(const std::vector<int32_t>& values) {
    Tensor result = Tensor::empty({static_cast<int64_t>(values.size())}, DType::kI32);
    std::copy(values.begin(), values.end(), result.data<int32_t>());
    return result;
  }
  // Sorted places of the host's rows, in the order in which they are collected.
  std::vector<int64_t> expected_places() const {
    std::vector<int64_t> places;
    for (const int32_t expert : GetParam().experts) {
      for (int32_t row = offsets_[static_cast<size_t>(expert)]; row < offsets_[static_cast<size_t>(expert) + 1]; ++row) {
        places.push_back(row);
      }
    }
    return places;
  }

  std::vector<int32_t> offsets_ = [] {
    std::vector<int32_t> offsets{0};
    for (const int32_t count : GetParam().counts) offsets.push_back(offsets.back() + count);
    return offsets;
  }();
  const int64_t num_rows_ = offsets_.back();
};

TEST_P(HostRows, AreCollectedInPassesOfAnySize) {
  const Case& test_case = GetParam();
  Tensor rows = Tensor::empty({num_rows_ + 3, test_case.width}, DType::kBF16);
  cpu::convert(random_f32(rows.shape(), 1), rows);
  const Tensor sorted = on_gpu(rows), row_offsets = on_gpu(integers(offsets_)), experts = on_gpu(integers(test_case.experts));
  const std::vector<int64_t> places = expected_places();
  const auto total = static_cast<int64_t>(places.size());
  for (const int64_t capacity : {int64_t{1}, int64_t{7}, std::max<int64_t>(total, 1), total + 5}) {
    for (int64_t first = 0; first == 0 || first < total; first += capacity) {
      PinnedTensor offsets({static_cast<int64_t>(test_case.experts.size()) + 1}, DType::kI32);
      PinnedTensor collected({capacity, test_case.width}, DType::kBF16);
      collect_host_rows({row_offsets, experts}, sorted, first, {offsets.tensor(), collected.tensor()}, stream());
      stream().synchronize();
      int32_t before = 0;
      for (size_t i = 0; i < test_case.experts.size(); ++i) {
        EXPECT_EQ(offsets.tensor().data<int32_t>()[i], before);
        before += test_case.counts[static_cast<size_t>(test_case.experts[i])];
      }
      EXPECT_EQ(offsets.tensor().data<int32_t>()[test_case.experts.size()], total);
      for (int64_t row = 0; row < capacity; ++row) {
        const Tensor actual = collected.tensor().slice(row, row + 1);
        if (first + row < total) {
          const int64_t place = places[static_cast<size_t>(first + row)];
          EXPECT_TRUE(same_bytes(actual, rows.slice(place, place + 1))) << "row " << first + row;
        } else {
          EXPECT_TRUE(same_bytes(actual, Tensor::zeros(actual.shape(), DType::kBF16))) << "row " << first + row << " was written";
        }
      }
    }
  }
}

TEST_P(HostRows, ReturnToTheirPlacesAndLeaveTheOthersAlone) {
  const Case& test_case = GetParam();
  const Tensor row_offsets = on_gpu(integers(offsets_)), experts = on_gpu(integers(test_case.experts));
  const std::vector<int64_t> places = expected_places();
  const auto total = static_cast<int64_t>(places.size());
  PinnedTensor results({std::max<int64_t>(total, 1), test_case.width}, DType::kF32);
  const Tensor values = random_f32({total, test_case.width}, 2);
  std::memcpy(results.tensor().bytes(), values.bytes(), values.num_bytes());
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    Tensor sorted = poisoned({num_rows_ + 3, test_case.width}, dtype);
    const Tensor untouched = on_host(sorted);
    constexpr int64_t kPass = 5;
    for (int64_t first = 0; first < total; first += kPass) {
      const Tensor pass = results.tensor().slice(first, std::min(first + kPass, total));
      return_host_rows({row_offsets, experts}, pass, first, sorted, stream());
    }
    return_host_rows({row_offsets, experts}, results.tensor().first(0), total, sorted, stream());
    const Tensor actual = on_host(sorted);
    Tensor expected = untouched;
    for (int64_t row = 0; row < total; ++row) {
      Tensor place = expected.slice(places[static_cast<size_t>(row)], places[static_cast<size_t>(row)] + 1);
      cpu::convert(values.slice(row, row + 1), place);
    }
    EXPECT_TRUE(same_bytes(actual, expected)) << name_of(dtype);
  }
}

std::vector<int32_t> every_third(int32_t count) {
  std::vector<int32_t> experts;
  for (int32_t expert = 1; expert < count; expert += 3) experts.push_back(expert);
  return experts;
}

Case large_case() {
  Case result{{}, every_third(128), 2048};
  for (int32_t expert = 0; expert < 128; ++expert) result.counts.push_back(expert * 7 % 13);
  return result;
}

INSTANTIATE_TEST_SUITE_P(Counts, HostRows,
                         testing::Values(Case{{3, 0, 2, 5}, {1, 3}, 8}, Case{{0, 0, 0}, {0, 2}, 16}, Case{{1}, {0}, 264},
                                         Case{{4, 1, 0, 6, 2}, {0, 1, 2, 3, 4}, 64}, Case{{0, 0, 9}, {0, 1}, 8},
                                         large_case()));

}  // namespace
}  // namespace skipper::cuda
