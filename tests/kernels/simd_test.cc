// The vector code under every register width this CPU has, not only the widest one that the dispatchers choose.
#include "kernels/cpu/simd.h"

#include <limits>

#include "kernels/cpu/dot_tile.h"
#include "kernels/cpu/row_sums.h"
#include "tests/kernels/random_tensors.h"

namespace skipper::cpu {
namespace {

// Runs Kernel on each instruction set that is there; `check(isa)` looks at its results.
template <typename Kernel, typename Check, typename... Args>
void for_each_isa(const Check& check, const Args&... args) {
  run_portable<Kernel>(args...);
  check("portable");
#if defined(__x86_64__)
  if (best_isa() >= Isa::kAvx2) {
    run_avx2<Kernel>(args...);
    check("avx2");
  }
  if (best_isa() >= Isa::kAvx512) {
    run_avx512<Kernel>(args...);
    check("avx512");
  }
#endif
}

struct DotKernel {
  template <int kWidth, typename T>
  [[gnu::always_inline]] static void run(const DotOperands<T>& operands, int64_t rows, int64_t columns) {
    dot_products<kWidth>(operands, rows, columns);
  }
};

struct ExpKernel {
  template <int kWidth>
  [[gnu::always_inline]] static void run(const float* const& x, float* const& y, int64_t count) {
    for_each_vector<kWidth>(
        count, [&](const auto& load, const auto& store) __attribute__((always_inline)) { store(y, exp(load(x))); });
  }
};

struct SumKernel {
  template <int kWidth>
  [[gnu::always_inline]] static void run(const float* const& x, int64_t count, float* const& sum) {
    *sum = sum_over_row<kWidth>(
        x, count, [](const Lanes<kWidth>& v) __attribute__((always_inline)) { return v; });
  }
};

class SimdTest : public testing::TestWithParam<WeightType> {
 protected:
  template <typename T>
  void check_dots(int64_t rows, int64_t columns, int64_t depth) {
    const Tensor x = random_tensor({rows, depth}, DType::kF32, 1), w = random_tensor({columns, depth}, GetParam().dtype, 2);
    const std::vector<double> a = as_doubles(x), b = as_doubles(w);
    std::vector<double> expected;
    for (int64_t m = 0; m < rows; ++m) {
      for (int64_t n = 0; n < columns; ++n) {
        double sum = 0;
        for (int64_t k = 0; k < depth; ++k)
          sum += a[static_cast<size_t>(m * depth + k)] * b[static_cast<size_t>(n * depth + k)];
        expected.push_back(sum);
      }
    }
    Tensor y = Tensor::zeros({rows, columns}, DType::kF32);
    const DotOperands<T> operands{x.data<float>(), depth, w.data<T>(), depth, depth, y.data<float>(), columns};
    const auto check = [&](const char* isa) {
      SCOPED_TRACE(isa);
      expect_close(y, expected, GetParam().tolerance);
      check_single_tiles(operands, rows, columns, y, isa);
      for (float& value : y.span<float>()) value = NAN;
    };
    for_each_isa<DotKernel>(check, operands, rows, columns);
  }

  // Every element again in a 1 × 1 tile of the same instruction set: the same bits.
  template <typename T>
  void check_single_tiles(const DotOperands<T>& operands, int64_t rows, int64_t columns, const Tensor& y,
                          const std::string& isa) {
    for (int64_t i = 0; i < rows * columns; ++i) {
      float single = 0.0f;
      DotOperands<T> one = operands.at(i / columns, i % columns);
      one.y = &single;
      const auto check = [&](const char* ran) {
        if (ran == isa) {
          EXPECT_EQ(single, y.data<float>()[i]) << "element " << i;
        }
      };
      for_each_isa<DotKernel>(check, one, int64_t{1}, int64_t{1});
    }
  }
};

TEST_P(SimdTest, DotProductsAreRightAndIndependentOfTheTile) {
  for (const auto& [rows, columns, depth] : {std::tuple{1, 1, 3}, {4, 4, 32}, {7, 9, 16}, {5, 6, 47}, {3, 3, 130}}) {
    if (GetParam().dtype == DType::kBF16) {
      check_dots<bf16>(rows, columns, depth);
    } else {
      check_dots<float>(rows, columns, depth);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Weights, SimdTest, testing::ValuesIn(kWeightTypes), name_of_weight_type);

TEST(Exp, IsWithinTwoUnitsInTheLastPlace) {
  std::vector<float> x, y;
  for (float value = -85.0f; value < 88.7f; value += 0.01371f) x.push_back(value);
  y.resize(x.size());
  const auto check = [&](const char* isa) {
    for (size_t i = 0; i < x.size(); ++i) {
      const double exact = std::exp(double{x[i]});
      ASSERT_LE(std::abs(double{y[i]} / exact - 1.0), 2 * 1.2e-7) << isa << ", exp(" << x[i] << ")";
    }
  };
  for_each_isa<ExpKernel>(check, x.data(), y.data(), static_cast<int64_t>(x.size()));
}

TEST(Exp, HandlesTheEnds) {
  const float infinity = std::numeric_limits<float>::infinity();
  const std::vector<float> x = {-infinity, -1e30f, -87.0f, 0.0f, -0.0f, 89.0f, infinity, NAN};
  const std::vector<float> expected = {0, 0, 0, 1, 1, infinity, infinity};
  std::vector<float> y(x.size());
  const auto check = [&](const char* isa) {
    for (size_t i = 0; i < expected.size(); ++i) EXPECT_EQ(y[i], expected[i]) << isa << ", exp(" << x[i] << ")";
    EXPECT_TRUE(std::isnan(y.back())) << isa;
  };
  for_each_isa<ExpKernel>(check, x.data(), y.data(), static_cast<int64_t>(x.size()));
}

TEST(SumOverRow, HasTheSameBitsOnEveryInstructionSet) {
  for (const int64_t count : {0, 1, 15, 16, 17, 1000}) {
    const Tensor x = random_tensor({count}, DType::kF32, 3);
    float sum = 0.0f, first = 0.0f;
    const auto check = [&](const std::string& isa) {
      if (isa == "portable") first = sum;
      EXPECT_EQ(sum, first) << isa << ", " << count << " elements";
    };
    for_each_isa<SumKernel>(check, x.data<float>(), count, &sum);
  }
}

}  // namespace
}  // namespace skipper::cpu
