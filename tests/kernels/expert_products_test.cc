#include "kernels/expert_products.h"

#include "kernels/linear.h"
#include "tests/kernels/packed_products.h"

namespace skipper {
namespace {

struct LayerShape {
  int64_t num_tokens;
  int64_t hidden_size;
  int64_t intermediate_size;
  std::vector<int32_t> rows_of_expert;
};

// Edges: no rows at all, experts without rows, one of everything, primes, a full and an overfull row tile, two panel groups.
const LayerShape kLayers[] = {{0, 8, 8, {0, 0}},          {1, 1, 1, {1}},           {3, 7, 5, {0, 2, 0, 1}},
                              {5, 33, 17, {3, 0, 11}},    {2, 64, 16, {13, 14, 1}}, {29, 40, 37, {7, 1, 29, 0, 2}},
                              {11, 19, 150, {2, 5, 0, 1}}};

// A layer with random weights, each expert in the next of `formats`, and rows that read random tokens.
class ExpertLayer {
 public:
  ExpertLayer(const LayerShape& shape, std::vector<ProductFormat> formats, DType token_type)
      : shape_(shape),
        formats_(std::move(formats)),
        tokens_(random_tensor({shape.num_tokens, shape.hidden_size}, token_type, 1)) {
    for (size_t e = 0; e < shape.rows_of_expert.size(); ++e) add_expert(e);
    std::mt19937 generator(2);
    std::vector<int32_t> offsets{0}, rows;
    for (const int32_t count : shape.rows_of_expert) {
      offsets.push_back(offsets.back() + count);
      for (int32_t i = 0; i < count; ++i) {
        rows.push_back(static_cast<int32_t>(generator() % static_cast<uint32_t>(shape.num_tokens)));
      }
    }
    row_index_ = index_tensor(rows);
    row_offsets_ = index_tensor(offsets);
  }

  int64_t num_rows() const { return row_index_.dim(0); }
  const ProductFormat& format(size_t expert) const { return formats_[expert % formats_.size()]; }
  const std::vector<PackedMatrix>& down() const { return down_; }

  Tensor gate_up_product(Stream& stream) const {
    Tensor activated = Tensor::empty({num_rows(), shape_.intermediate_size}, DType::kF32);
    expert_gate_up({tokens_, row_index_, row_offsets_}, gate_up_, activated, stream);
    return activated;
  }

  Tensor down_product(const Tensor& activated, Stream& stream) const {
    Tensor y = Tensor::empty({num_rows(), shape_.hidden_size}, DType::kF32);
    expert_down({activated, row_offsets_}, down_, y, stream);
    return y;
  }

  // visit(expert, row) for every row.
  template <typename Visit>
  void for_each_row(const Visit& visit) const {
    const int32_t* offsets = row_offsets_.data<int32_t>();
    for (size_t e = 0; e < gate_.size(); ++e) {
      for (int64_t row = offsets[e]; row < offsets[e + 1]; ++row) visit(e, row);
    }
  }

  Tensor token_of(int64_t row) const {
    const int64_t token = row_index_.data<int32_t>()[row];
    return tokens_.slice(token, token + 1);
  }

  std::vector<double> exact_activation(size_t expert, int64_t row) const {
    const std::vector<double> x = activations_as_doubles(token_of(row), format(expert).activations);
    const auto times = [&](const PackedMatrix& w) {
      return exact_product(x, as_doubles(unpack(w)), shape_.hidden_size, 1, shape_.intermediate_size);
    };
    std::vector<double> gate = times(gate_[expert]);
    const std::vector<double> up = times(up_[expert]);
    for (size_t i = 0; i < gate.size(); ++i) gate[i] = gate[i] / (1.0 + std::exp(-gate[i])) * up[i];
    return gate;
  }

 private:
  void add_expert(size_t expert) {
    const auto seed = static_cast<uint32_t>(10 * expert);
    const int64_t hidden = shape_.hidden_size, intermediate = shape_.intermediate_size;
    const Tensor gate = random_tensor({intermediate, hidden}, DType::kBF16, seed + 3);
    const Tensor up = random_tensor({intermediate, hidden}, DType::kBF16, seed + 4);
    gate_.push_back(pack_for(format(expert), gate));
    up_.push_back(pack_for(format(expert), up));
    down_.push_back(pack_for(format(expert), random_tensor({hidden, intermediate}, DType::kBF16, seed + 5)));
    PackedMatrix both = empty_packed(format(expert).weights, {2 * 16 * ((intermediate + 15) / 16), hidden});
    both.activations = format(expert).activations;
    pack_gate_up(gate, up, both);
    gate_up_.push_back(both);
  }

  LayerShape shape_;
  std::vector<ProductFormat> formats_;
  Tensor tokens_;
  Tensor row_index_;
  Tensor row_offsets_;
  std::vector<PackedMatrix> gate_, up_, gate_up_, down_;
};

class ExpertProductsTest : public testing::TestWithParam<ProductFormat> {
 protected:
  Stream stream_;
};

TEST_P(ExpertProductsTest, GateAndUpBecomeTheirSwiglu) {
  for (const LayerShape& shape : kLayers) {
    for (const DType token_type : {DType::kF32, DType::kBF16}) {
      const ExpertLayer layer(shape, {GetParam()}, token_type);
      on_each_isa([&] {
        const Tensor activated = layer.gate_up_product(stream_);
        layer.for_each_row([&](size_t expert, int64_t row) {
          // A product of two sums: both their errors, each times the size of the other.
          const double tolerance = 4 * product_tolerance(GetParam(), shape.hidden_size) *
                                   std::sqrt(static_cast<double>(std::max<int64_t>(1, shape.hidden_size)));
          expect_close(activated.slice(row, row + 1), layer.exact_activation(expert, row), tolerance);
        });
      });
    }
  }
}

TEST_P(ExpertProductsTest, DownMultipliesEachRowWithItsExpert) {
  for (const LayerShape& shape : kLayers) {
    const ExpertLayer layer(shape, {GetParam()}, DType::kF32);
    const Tensor activated = random_tensor({layer.num_rows(), shape.intermediate_size}, DType::kF32, 6);
    on_each_isa([&] {
      const Tensor y = layer.down_product(activated, stream_);
      layer.for_each_row([&](size_t expert, int64_t row) {
        const std::vector<double> x = activations_as_doubles(activated.slice(row, row + 1), GetParam().activations);
        const std::vector<double> exact =
            exact_product(x, as_doubles(unpack(layer.down()[expert])), shape.intermediate_size, 1, shape.hidden_size);
        expect_close(y.slice(row, row + 1), exact, product_tolerance(GetParam(), shape.intermediate_size));
      });
    });
  }
}

INSTANTIATE_TEST_SUITE_P(Floats, ExpertProductsTest, testing::ValuesIn(kFloatProducts), name_of_product);

// Experts of all formats in one call.
std::vector<ProductFormat> mixed_formats() {
  std::vector<ProductFormat> formats(std::begin(kFloatProducts), std::end(kFloatProducts));
  for (const std::string& name : weight_format_names()) {
    const WeightFormat format = parse_weight_format(name, "");
    if (format.is_integer()) formats.push_back({format, ActivationFormat::kInt8, 0});
  }
  return formats;
}

TEST(MixedExperts, EachRowHasTheBitsItHasAlone) {
  Stream stream;
  LayerShape shape{31, 140, 75, {}};
  for (int32_t rows = 0; rows < 20; ++rows) shape.rows_of_expert.push_back(rows);
  const std::vector<ProductFormat> formats = mixed_formats();
  const ExpertLayer layer(shape, formats, DType::kBF16);
  const Tensor activated = layer.gate_up_product(stream);
  const Tensor y = layer.down_product(activated, stream);
  layer.for_each_row([&](size_t expert, int64_t row) {
    Tensor alone = Tensor::empty({1, shape.hidden_size}, DType::kF32);
    linear(activated.slice(row, row + 1), {layer.down()[expert], {}}, alone, stream);
    ASSERT_TRUE(same_bits(y.slice(row, row + 1), alone)) << "row " << row << " of expert " << expert;
  });
}

TEST(MixedExperts, ThreadsDoNotChangeABit) {
  Stream stream;
  LayerShape shape{40, 260, 150, {}};
  for (int32_t rows = 0; rows < 40; ++rows) shape.rows_of_expert.push_back((rows * 7) % 31);
  const ExpertLayer layer(shape, mixed_formats(), DType::kF32);
  const Tensor activated = layer.gate_up_product(stream);
  const Tensor y = layer.down_product(activated, stream);
  for (const int num_threads : {2, 3}) {
    ThreadPool workers(num_threads);
    Stream threads(workers);
    EXPECT_TRUE(same_bits(layer.gate_up_product(threads), activated)) << num_threads << " threads";
    EXPECT_TRUE(same_bits(layer.down_product(activated, threads), y)) << num_threads << " threads";
  }
}

TEST(ExpertProducts, ExpertsWithoutRowsNeedNoWeights) {
  Stream stream;
  const Tensor tokens = random_tensor({2, 20}, DType::kF32, 1);
  std::vector<PackedMatrix> down(3);
  down[1] = pack(random_tensor({9, 20}, DType::kBF16, 2), {});
  Tensor y = Tensor::empty({2, 9}, DType::kF32), alone = Tensor::empty({2, 9}, DType::kF32);
  expert_down({tokens, index_tensor({0, 0, 2, 2})}, down, y, stream);
  linear(tokens, {down[1], {}}, alone, stream);
  EXPECT_TRUE(same_bits(y, alone));
}

TEST(ExpertProductsDeathTest, NamesTheExpertThatDoesNotFit) {
  Stream stream;
  const Tensor x = Tensor::zeros({2, 8}, DType::kF32);
  Tensor y = Tensor::zeros({2, 16}, DType::kF32);
  const PackedMatrix fits = pack(Tensor::zeros({16, 8}, DType::kF32), {}), other = pack(Tensor::zeros({16, 9}, DType::kF32), {});
  EXPECT_DEATH(expert_down({x, index_tensor({0, 1, 2})}, std::vector<PackedMatrix>{fits, other}, y, stream),
               "expert_down: inputs of expert 1");
  EXPECT_DEATH(expert_down({x, index_tensor({0, 1, 3})}, std::vector<PackedMatrix>{fits, fits}, y, stream),
               "expert_down: offsets reach beyond the rows");
}

}  // namespace
}  // namespace skipper
