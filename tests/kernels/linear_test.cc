#include "kernels/linear.h"

#include "tests/kernels/packed_products.h"

namespace skipper {
namespace {

struct ProductShape {
  int64_t rows, columns, depth;
};

// Edges: nothing at all, one, primes, one more and one less than a chunk, a panel, a tile and eight panels.
constexpr ProductShape kShapes[] = {{0, 5, 7},   {3, 0, 7},    {2, 3, 0},    {1, 1, 1},     {1, 16, 2},   {1, 17, 3},
                                    {2, 31, 15}, {3, 33, 17},  {4, 128, 64}, {5, 129, 31},  {6, 144, 33}, {7, 13, 97},
                                    {13, 19, 8}, {14, 32, 40}, {27, 47, 65}, {67, 9, 1031}, {1, 300, 129}};

class LinearTest : public testing::TestWithParam<ProductFormat> {
 protected:
  Stream stream_;
};

TEST_P(LinearTest, EqualsTheSumOverDepth) {
  for (const auto& [rows, columns, depth] : kShapes) {
    SCOPED_TRACE(testing::Message() << rows << " x " << columns << " x " << depth);
    const Tensor x = random_tensor({rows, depth}, DType::kF32, 1);
    const PackedMatrix w = pack_for(GetParam(), random_tensor({columns, depth}, DType::kBF16, 2));
    const std::vector<double> exact = exact_product(activations_as_doubles(x, GetParam().activations), as_doubles(unpack(w)),
                                                    depth, rows, columns);
    on_each_isa([&] {
      Tensor y = Tensor::empty({rows, columns}, DType::kF32);
      linear(x, {w, {}}, y, stream_);
      expect_close(y, exact, product_tolerance(GetParam(), depth));
    });
  }
}

TEST_P(LinearTest, AddsTheBiasToEveryRow) {
  const Tensor x = random_tensor({5, 37}, DType::kF32, 1);
  const PackedMatrix w = pack_for(GetParam(), random_tensor({35, 37}, DType::kBF16, 2));
  Tensor without = Tensor::empty({5, 35}, DType::kF32);
  linear(x, {w, {}}, without, stream_);
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const Tensor bias = random_tensor({35}, dtype, 3);
    const std::vector<double> addends = as_doubles(bias);
    Tensor y = Tensor::empty({5, 35}, DType::kF32);
    linear(x, {w, bias}, y, stream_);
    for (int64_t i = 0; i < y.num_elements(); ++i) {
      const float addend = static_cast<float>(addends[static_cast<size_t>(i % 35)]);
      ASSERT_EQ(y.data<float>()[i], without.data<float>()[i] + addend) << i;
    }
  }
}

TEST_P(LinearTest, RowHasTheSameBitsAloneAndAmongOthers) {
  constexpr int64_t kMostRows = 40;
  for (const auto& [columns, depth] : {std::pair{150, 131}, {17, 64}, {32, 1}}) {
    const Tensor x = random_tensor({kMostRows, depth}, DType::kF32, 4);
    const PackedLinear w{pack_for(GetParam(), random_tensor({columns, depth}, DType::kBF16, 5)), {}};
    on_each_isa([&] {
      Tensor alone = Tensor::empty({kMostRows, columns}, DType::kF32);
      for (int64_t row = 0; row < kMostRows; ++row) {
        Tensor y = alone.slice(row, row + 1);
        linear(x.slice(row, row + 1), w, y, stream_);
      }
      for (int64_t rows = 1; rows <= kMostRows; ++rows) {
        Tensor y = Tensor::empty({rows, columns}, DType::kF32);
        linear(x.first(rows), w, y, stream_);
        ASSERT_TRUE(same_bits(y, alone.first(rows))) << rows << " rows, depth " << depth;
      }
    });
  }
}

TEST_P(LinearTest, PanelsHaveTheSameBitsOnTheirOwn) {
  const Tensor x = random_tensor({9, 45}, DType::kF32, 7);
  const PackedMatrix w = pack_for(GetParam(), random_tensor({210, 45}, DType::kBF16, 8));
  Tensor all = Tensor::empty({9, 210}, DType::kF32);
  linear(x, {w, {}}, all, stream_);
  for (int64_t panel = 0; panel < w.num_panels(); ++panel) {
    const PackedMatrix part = w.panels(panel, panel + 1);
    Tensor y = Tensor::empty({9, part.num_rows}, DType::kF32);
    linear(x, {part, {}}, y, stream_);
    for (int64_t row = 0; row < 9; ++row) {
      for (int64_t n = 0; n < part.num_rows; ++n) ASSERT_EQ(y.row<float>(row)[n], all.row<float>(row)[16 * panel + n]);
    }
  }
}

TEST_P(LinearTest, ThreadsDoNotChangeABit) {
  // Enough rows and inputs for several blocks of row tiles and for a parallel conversion.
  const Tensor x = random_tensor({300, 700}, DType::kF32, 9);
  const PackedLinear w{pack_for(GetParam(), random_tensor({270, 700}, DType::kBF16, 10)), random_tensor({270}, DType::kF32, 11)};
  Tensor serial = Tensor::empty({300, 270}, DType::kF32);
  linear(x, w, serial, stream_);
  for (const int num_threads : {2, 3}) {
    ThreadPool workers(num_threads);
    Stream stream(workers);
    for (const int64_t rows : {1, 40, 300}) {
      Tensor y = Tensor::empty({rows, 270}, DType::kF32);
      linear(x.first(rows), w, y, stream);
      EXPECT_TRUE(same_bits(y, serial.first(rows))) << num_threads << " threads, " << rows << " rows";
    }
  }
}

TEST_P(LinearTest, NanOfOneRowStaysInItsRow) {
  Tensor x = random_tensor({5, 23}, DType::kF32, 9);
  x.row<float>(2)[22] = NAN;
  const PackedMatrix w = pack_for(GetParam(), random_tensor({6, 23}, DType::kBF16, 10));
  on_each_isa([&] {
    Tensor y = Tensor::empty({5, 6}, DType::kF32);
    linear(x, {w, {}}, y, stream_);
    for (int64_t i = 0; i < y.num_elements(); ++i) EXPECT_EQ(std::isnan(y.data<float>()[i]), i / 6 == 2) << i;
  });
}

INSTANTIATE_TEST_SUITE_P(Floats, LinearTest, testing::ValuesIn(kFloatProducts), name_of_product);

TEST(LinearIsaTest, FmaOfAvx2AndAvx512HaveTheSameBits) {
  const std::vector<cpu::Isa> isas = cpu::available_isas();
  if (isas.back() < cpu::Isa::kAvx512) GTEST_SKIP() << "this CPU has no AVX-512";
  Stream stream;
  const Tensor x = random_tensor({11, 203}, DType::kF32, 1), w = random_tensor({40, 203}, DType::kBF16, 2);
  for (const ProductFormat& format : kFloatProducts) {
    const PackedMatrix packed = pack_for(format, w);
    const auto product_on = [&](cpu::Isa isa) {
      const cpu::IsaOverride forced(isa);
      Tensor y = Tensor::empty({11, 40}, DType::kF32);
      linear(x, {packed, {}}, y, stream);
      return y;
    };
    EXPECT_TRUE(same_bits(product_on(cpu::Isa::kAvx2), product_on(cpu::Isa::kAvx512)));
  }
}

TEST(LinearDeathTest, NamesTheShapesThatDoNotFit) {
  Stream stream;
  const Tensor x = Tensor::zeros({2, 3}, DType::kF32);
  Tensor y = Tensor::zeros({2, 4}, DType::kF32);
  EXPECT_DEATH(linear(x, {pack(Tensor::zeros({4, 5}, DType::kF32), {}), {}}, y, stream),
               "x \\[2, 3\\] does not fit a weight of 4 rows and 5 columns");
}

TEST(LinearDeathTest, RefusesGpuMemory) {
  Stream stream;
  const PackedMatrix w = pack(Tensor::zeros({4, 3}, DType::kF32), {});
  const Tensor x = Tensor::borrow_const(w.codes.bytes(), {2, 3}, DType::kF32, Device::cuda(0));
  Tensor y = Tensor::zeros({2, 4}, DType::kF32);
  EXPECT_DEATH(linear(x, {w, {}}, y, stream), "linear: no CUDA kernel");
}

}  // namespace
}  // namespace skipper
