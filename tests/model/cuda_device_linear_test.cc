#include "model/cuda/device_linear.h"

#include "base/error.h"
#include "tests/kernels/cuda/gpu_test.h"

namespace skipper::cuda {
namespace {

// Needs no GPU: matrices in the GPU's layout can lie in host memory.
PackedLinear random_linear(int64_t rows, uint32_t seed, const WeightFormat& format) {
  return {pack(random_f32({rows, 100}, seed), format), random_f32({rows}, seed + 1)};
}

TEST(UploadLinear, JoinsRowsAndBiases) {
  Stream host;
  for (const char* name : {"bf16", "int8-g64"}) {
    const WeightFormat format = parse_weight_format(name, "test");
    const std::vector<PackedLinear> parts{random_linear(48, 1, format), random_linear(16, 3, format),
                                          random_linear(5, 5, format)};
    const DeviceLinear joined = upload_linear(parts, host);
    const Tensor weight = read_back(joined.weight, 0, host);
    int64_t begin = 0;
    for (const PackedLinear& part : parts) {
      const int64_t end = begin + part.weight.num_rows;
      EXPECT_TRUE(same_bytes(weight.slice(begin, end), unpack(part.weight))) << name << " from row " << begin;
      EXPECT_TRUE(same_bytes(joined.bias.slice(begin, end), part.bias)) << name << " from row " << begin;
      begin = end;
    }
    EXPECT_EQ(weight.dim(0), begin);
  }
}

TEST(UploadLinear, RefusesPartsThatCannotBeJoined) {
  Stream host;
  const WeightFormat bf16_format = parse_weight_format("bf16", "test"), int8 = parse_weight_format("int8-g64", "test");
  const std::vector<PackedLinear> formats{random_linear(16, 1, bf16_format), random_linear(16, 3, int8)};
  EXPECT_THROW(upload_linear(formats, host), InvalidRequest);
  const std::vector<PackedLinear> ragged{random_linear(17, 1, int8), random_linear(16, 3, int8)};
  EXPECT_THROW(upload_linear(ragged, host), InvalidRequest);
}

}  // namespace
}  // namespace skipper::cuda
