// Matrices that rest in page-locked host memory: read in place by the products, or from copies.
#include <numeric>

#include "kernels/cuda/device_matrix.h"
#include "kernels/cuda/matrix_products.h"
#include "kernels/elementwise.h"
#include "tests/kernels/cuda/gpu_test.h"

namespace skipper::cuda {
namespace {

constexpr auto kDevice = MatrixPlace::kDevice;
constexpr auto kHost = MatrixPlace::kHost;

const std::vector<WeightFormat> kFormats{{WeightKind::kBF16, 0}, {WeightKind::kInt4, 32}, {WeightKind::kInt8, 64},
                                         {WeightKind::kBF16, 0}, {WeightKind::kInt4, 64}, {WeightKind::kInt8, 32},
                                         {WeightKind::kInt4, 128}};

Tensor offsets_of(const std::vector<int32_t>& counts) {
  Tensor offsets = Tensor::zeros({static_cast<int64_t>(counts.size()) + 1}, DType::kI32);
  std::partial_sum(counts.begin(), counts.end(), offsets.data<int32_t>() + 1);
  return offsets;
}

Tensor random_bf16(const Shape& shape, uint32_t seed) {
  const Tensor values = random_f32(shape, seed);
  Tensor rounded = Tensor::empty(shape, DType::kBF16);
  cpu::convert(values, rounded);
  return rounded;
}

class HostMatrices : public GpuTest {
 protected:
  DeviceMatrices random(const std::vector<MatrixPlace>& places, const MatrixShape& shape) {
    DeviceMatrices matrices = empty_device_matrices(kFormats, places, shape, Device::cuda(0));
    fill_random(matrices, 11, stream());
    return matrices;
  }
  std::vector<std::vector<MatrixPlace>> tables() const {
    const size_t count = kFormats.size();
    std::vector<std::vector<MatrixPlace>> result{std::vector(count, kHost), std::vector(count, kDevice)};
    result.back()[3] = kHost;
    std::mt19937 generator(5);
    for (int i = 0; i < 4; ++i) {
      std::vector<MatrixPlace>& places = result.emplace_back(count, kDevice);
      for (MatrixPlace& place : places) place = generator() % 2 == 0 ? kHost : kDevice;
    }
    return result;
  }
  // gate_up and down of the same rows.
  std::pair<Tensor, Tensor> products(const DeviceMatrices& w, const std::vector<int32_t>& counts, int64_t expected_rows) {
    const Tensor offsets = on_gpu(offsets_of(counts));
    const int64_t num_rows = std::accumulate(counts.begin(), counts.end(), int64_t{0});
    const Tensor x = on_gpu(random_bf16({num_rows, w.shape.num_columns}, 3));
    Tensor activated = poisoned({num_rows, w.shape.num_rows / 2}, DType::kBF16);
    Tensor y = poisoned({num_rows, w.shape.num_rows}, DType::kF32);
    expert_gate_up({x, offsets, expected_rows}, w, activated, stream());
    expert_down({x, offsets, expected_rows}, w, y, stream());
    return {on_host(activated), on_host(y)};
  }
  void expect_same_products(const DeviceMatrices& a, const DeviceMatrices& b, const char* what) {
    const std::pair<std::vector<int32_t>, int64_t> cases[] = {
        {{1, 0, 0, 2, 1, 0, 3}, 1},
        {{0, 9, 30, 1, 0, 17, 5}, 8},
        {{300, 1, 65, 0, 129, 190, 257}, 150},
        {{0, 0, 0, 0, 0, 0, 1}, 1}};
    for (const auto& [counts, expected_rows] : cases) {
      const auto [gate_up, down] = products(a, counts, expected_rows);
      const auto [expected_gate_up, expected_down] = products(b, counts, expected_rows);
      EXPECT_TRUE(same_bytes(gate_up, expected_gate_up)) << what << ", expected rows " << expected_rows;
      EXPECT_TRUE(same_bytes(down, expected_down)) << what << ", expected rows " << expected_rows;
    }
  }
};

TEST_F(HostMatrices, HoldTheWeightsThatTheyWouldHoldOnTheGpu) {
  const MatrixShape shape{112, 136};
  const DeviceMatrices resident = random(std::vector(kFormats.size(), kDevice), shape);
  for (const auto& places : tables()) {
    const DeviceMatrices placed = random(places, shape);
    EXPECT_EQ(placed.num_bytes() + placed.num_host_bytes(), resident.num_bytes());
    EXPECT_GT(placed.num_host_bytes(), 0u);
    for (int i = 0; i < placed.num_matrices(); ++i) {
      EXPECT_TRUE(same_bytes(read_back(placed, i, stream()), read_back(resident, i, stream()))) << i;
    }
  }
}

TEST_F(HostMatrices, AreUploadedToTheirPlaces) {
  const MatrixShape shape{64, 72};
  const WeightFormat int8{WeightKind::kInt8, 64};
  const std::vector<MatrixPlace> places{kHost, kDevice, kHost};
  DeviceMatrices matrices = empty_device_matrices(std::vector(3, int8), places, shape, Device::cuda(0));
  std::vector<Tensor> weights;
  for (int i = 0; i < 3; ++i) {
    weights.push_back(random_f32({shape.num_rows, shape.num_columns}, static_cast<uint32_t>(i)));
    std::vector<std::byte> packed(device_matrix_bytes(int8, shape));
    pack_device_matrix(weights.back(), int8, packed);
    upload_matrix(packed, i, matrices, stream());
    stream().synchronize();
  }
  for (int i = 0; i < 3; ++i) {
    EXPECT_LT(relative_error(read_back(matrices, i, stream()), weights[static_cast<size_t>(i)]), 0.01) << i;
  }
}

TEST_F(HostMatrices, GiveTheBitsOfMatricesOnTheGpu) {
  for (const MatrixShape& shape : {MatrixShape{192, 136}, MatrixShape{1536, 2048}}) {
    const DeviceMatrices resident = random(std::vector(kFormats.size(), kDevice), shape);
    for (const auto& places : tables()) expect_same_products(random(places, shape), resident, "in place");
  }
}

TEST_F(HostMatrices, LeaveTheRowsOfAbsentOnesAlone) {
  const MatrixShape shape{192, 136};
  const DeviceMatrices resident = random(std::vector(kFormats.size(), kDevice), shape);
  std::vector<MatrixPlace> places(kFormats.size(), kDevice);
  places[1] = places[5] = MatrixPlace::kAbsent;
  places[2] = kHost;
  const DeviceMatrices placed = random(places, shape);
  EXPECT_LT(placed.num_bytes() + placed.num_host_bytes(), resident.num_bytes());
  const std::vector<int32_t> counts{3, 20, 0, 1, 7, 9, 2};
  const Tensor offsets = offsets_of(counts);
  for (const int64_t expected_rows : {1, 8, 150}) {
    const auto [gate_up, down] = products(placed, counts, expected_rows);
    const auto [expected_gate_up, expected_down] = products(resident, counts, expected_rows);
    for (size_t e = 0; e < counts.size(); ++e) {
      const int64_t begin = offsets.data<int32_t>()[e], end = offsets.data<int32_t>()[e + 1];
      if (places[e] != MatrixPlace::kAbsent) {
        EXPECT_TRUE(same_bytes(gate_up.slice(begin, end), expected_gate_up.slice(begin, end))) << e;
        EXPECT_TRUE(same_bytes(down.slice(begin, end), expected_down.slice(begin, end))) << e;
        continue;
      }
      for (int64_t row = begin; row < end; ++row) EXPECT_TRUE(std::isnan(down.row<float>(row)[0])) << "row " << row;
    }
  }
}

TEST_F(HostMatrices, AreReadFromCopiesWhereThereAreSome) {
  const MatrixShape shape{192, 136};
  const DeviceMatrices resident = random(std::vector(kFormats.size(), kDevice), shape);
  for (const auto& places : tables()) {
    const DeviceMatrices placed = random(places, shape);
    DeviceMatrices copied = with_copies(placed, poisoned({static_cast<int64_t>(placed.num_host_bytes())}, DType::kU8));
    const Tensor& source = placed.host_memory.tensor();
    copy_bytes({source.bytes(), source.device(), copied.copies.bytes(), copied.copies.device(), source.num_bytes()}, stream());
    stream().synchronize();
    expect_same_products(copied, resident, "copied");
    expect_same_products(placed, resident, "in place beside copies");
  }
}

}  // namespace
}  // namespace skipper::cuda
