// Weights in GPU memory: the way there and back, and random ones made in place. Their order: tests/kernels/device_matrix_test.cc.
#include "kernels/cuda/device_matrix.h"

#include <set>

#include "tests/kernels/cuda/gpu_test.h"

namespace skipper::cuda {
namespace {

const WeightFormat kFormats[] = {{WeightKind::kBF16, 0},  {WeightKind::kInt8, 32}, {WeightKind::kInt8, 64},
                                 {WeightKind::kInt8, 128}, {WeightKind::kInt4, 32}, {WeightKind::kInt4, 64},
                                 {WeightKind::kInt4, 128}, {WeightKind::kBF16, 0}};

class DeviceMatrixOnGpu : public GpuTest {
 protected:
  // Random weights over memory that held `poison` everywhere.
  DeviceMatrices filled(const MatrixShape& shape, uint64_t seed, uint8_t poison) {
    DeviceMatrices matrices = empty_device_matrices(kFormats, shape, Device::cuda(0));
    Tensor bytes = Tensor::empty(matrices.memory.shape(), DType::kU8);
    std::memset(bytes.bytes(), poison, bytes.num_bytes());
    copy_bytes({bytes.bytes(), bytes.device(), matrices.memory.bytes(), matrices.memory.device(), bytes.num_bytes()}, stream());
    fill_random(matrices, seed, stream());
    return matrices;
  }
};

TEST_F(DeviceMatrixOnGpu, UploadedMatricesReadBackAsWhatTheyStandFor) {
  for (const MatrixShape& shape : {MatrixShape{96, 256}, MatrixShape{100, 72}, MatrixShape{1, 1}, MatrixShape{1536, 2048}}) {
    DeviceMatrices matrices = empty_device_matrices(kFormats, shape, Device::cuda(0));
    std::vector<PackedMatrix> packed;
    std::vector<std::vector<std::byte>> bytes;
    for (int i = 0; i < matrices.num_matrices(); ++i) {
      const Tensor w = random_f32({shape.num_rows, shape.num_columns}, static_cast<uint32_t>(i));
      packed.push_back(pack(w, kFormats[i]));
      bytes.emplace_back(device_matrix_bytes(kFormats[i], shape));
      repack_device_matrix(packed.back(), bytes.back());
      upload_matrix(bytes.back(), i, matrices, stream());
    }
    for (int i = 0; i < matrices.num_matrices(); ++i) {
      EXPECT_TRUE(same_bytes(read_back(matrices, i, stream()), unpack(packed[static_cast<size_t>(i)])))
          << name_of(kFormats[i]) << ", " << shape.num_rows << " x " << shape.num_columns;
    }
  }
}

TEST_F(DeviceMatrixOnGpu, TheTableIsThereWhenTheMatricesAre) {
  const MatrixShape shape{100, 72};
  const DeviceMatrices matrices = empty_device_matrices(kFormats, shape, Device::cuda(0));
  const Tensor table = on_host(matrices.table);
  auto address = reinterpret_cast<int64_t>(matrices.memory.bytes());
  for (int i = 0; i < matrices.num_matrices(); ++i) {
    EXPECT_EQ(table.row<int64_t>(i)[0], address);
    EXPECT_EQ(address % 128, 0);
    EXPECT_EQ(table.row<int64_t>(i)[1], static_cast<int>(kFormats[i].kind) + 256 * kFormats[i].group_size);
    address += static_cast<int64_t>(device_matrix_bytes(kFormats[i], shape));
  }
}

TEST_F(DeviceMatrixOnGpu, RandomFillWritesEveryByteByTheSeedAlone) {
  for (const MatrixShape& shape : {MatrixShape{1, 1}, MatrixShape{100, 72}, MatrixShape{768, 2048}}) {
    const Tensor bytes = on_host(filled(shape, 1, 0x00).memory);
    EXPECT_TRUE(same_bytes(on_host(filled(shape, 1, 0xff).memory), bytes)) << shape.num_rows << " x " << shape.num_columns;
    EXPECT_FALSE(same_bytes(on_host(filled(shape, 2, 0x00).memory), bytes));
  }
}

TEST_F(DeviceMatrixOnGpu, RandomWeightsHaveTheSizeOfTrainedOnes) {
  const MatrixShape shape{768, 2048};
  const DeviceMatrices matrices = filled(shape, 3, 0xff);
  const double largest = 1.0 / std::sqrt(2048.0);
  for (int i = 0; i < matrices.num_matrices(); ++i) {
    const Tensor w = read_back(matrices, i, stream());
    double sum = 0.0, squares = 0.0, most = 0.0;
    for (const float weight : w.span<float>()) {
      sum += weight;
      squares += double{weight} * weight;
      most = std::max(most, std::abs(double{weight}));
    }
    const auto count = static_cast<double>(w.num_elements());
    // Uniform in ±largest has the deviation 0.577 · largest; scales of integers differ by a quarter. Codes of four bits are ±7
    // eighths at most, with zeros twice as often, and nothing has a mean.
    const double deviation = kFormats[i].bits_per_code() == 4 ? 0.53 : 0.58;
    EXPECT_NEAR(std::sqrt(squares / count) / largest, deviation, 0.03) << name_of(kFormats[i]);
    EXPECT_NEAR(sum / count / largest, 0.0, 0.01) << name_of(kFormats[i]);
    EXPECT_GT(most, 0.9 * largest) << name_of(kFormats[i]);
    EXPECT_LT(most, 1.27 * largest) << name_of(kFormats[i]);
  }
}

TEST_F(DeviceMatrixOnGpu, RandomMatricesAndRowsDiffer) {
  const DeviceMatrices matrices = filled({128, 64}, 4, 0x00);
  std::set<std::vector<float>> rows;
  size_t num_rows = 0;
  for (int i = 0; i < matrices.num_matrices(); ++i) {
    const Tensor w = read_back(matrices, i, stream());
    for (int64_t row = 0; row < w.dim(0); ++row, ++num_rows) rows.emplace(w.row<float>(row), w.row<float>(row) + w.dim(1));
  }
  EXPECT_EQ(rows.size(), num_rows);
}

TEST_F(DeviceMatrixOnGpu, FillingNothingIsNoWork) {
  DeviceMatrices no_rows = empty_device_matrices(kFormats, {0, 64}, Device::cuda(0));
  fill_random(no_rows, 1, stream());
  DeviceMatrices none = empty_device_matrices({}, {64, 64}, Device::cuda(0));
  fill_random(none, 1, stream());
  EXPECT_EQ(no_rows.num_bytes() + none.num_bytes(), 0u);
}

}  // namespace
}  // namespace skipper::cuda
