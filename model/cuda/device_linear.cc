#include "model/cuda/device_linear.h"

#include <glog/logging.h>

#include <cstring>
#include <string>

#include "base/error.h"
#include "kernels/elementwise.h"

namespace skipper::cuda {
namespace {

// Panels of `part`, [panels, ...] of any element type, to `target` from its panel `begin` on.
void copy_panels(const Tensor& part, int64_t begin, Tensor& target) {
  if (!part.defined()) return;
  Tensor place = target.slice(begin, begin + part.dim(0));
  std::memcpy(place.bytes(), part.bytes(), part.num_bytes());
}

void check_can_follow(const PackedMatrix& first, const PackedMatrix& part, bool is_last) {
  CHECK_EQ(part.num_columns, first.num_columns) << "joined matrices of different inputs";
  if (part.format != first.format) {
    throw InvalidRequest("queries, keys and values in the formats " + name_of(first.format) + " and " +
                             name_of(part.format) + "; a GPU multiplies with them in one",
                         "weights");
  }
  if (!is_last && part.num_rows % kPanelRows != 0) {
    throw InvalidRequest("a projection to " + std::to_string(part.num_rows) + " outputs; on a GPU expected a multiple of " +
                             std::to_string(kPanelRows),
                         "model");
  }
}

// Whole panels follow one another, so nothing is repacked.
PackedMatrix join_rows(std::span<const PackedLinear> parts) {
  const PackedMatrix& first = parts.front().weight;
  if (parts.size() == 1) return first;
  int64_t num_rows = 0;
  for (const PackedLinear& part : parts) {
    check_can_follow(first, part.weight, &part == &parts.back());
    num_rows += part.weight.num_rows;
  }
  PackedMatrix joined = empty_packed(first.format, {num_rows, first.num_columns});
  int64_t panel = 0;
  for (const PackedLinear& part : parts) {
    copy_panels(part.weight.codes, panel, joined.codes);
    copy_panels(part.weight.scales, panel, joined.scales);
    copy_panels(part.weight.zeros, panel, joined.zeros);
    panel += part.weight.num_panels();
  }
  return joined;
}

// Undefined without a bias.
Tensor join_biases(std::span<const PackedLinear> parts, int64_t num_rows) {
  if (!parts.front().bias.defined()) return {};
  Tensor joined = Tensor::empty({num_rows}, DType::kF32);
  int64_t begin = 0;
  for (const PackedLinear& part : parts) {
    CHECK(part.bias.defined()) << "joined matrices with and without a bias";
    Tensor place = joined.slice(begin, begin + part.weight.num_rows);
    cpu::convert(part.bias, place);
    begin += part.weight.num_rows;
  }
  return joined;
}

}  // namespace

PackedMatrix as_multiplied(const PackedMatrix& packed) {
  return packed.format.kind == WeightKind::kF32 ? pack(unpack(packed), WeightFormat{}) : packed;
}

DeviceLinear upload_linear(std::span<const PackedLinear> parts, Stream& stream) {
  CHECK(!parts.empty());
  const PackedMatrix packed = as_multiplied(join_rows(parts));
  const MatrixShape shape{packed.num_rows, packed.num_columns};
  DeviceLinear result{empty_device_matrices({&packed.format, 1}, shape, stream.device()), {}};
  Tensor staging = Tensor::empty({static_cast<int64_t>(device_matrix_bytes(packed.format, shape))}, DType::kU8);
  const std::span<std::byte> bytes(staging.bytes(), staging.num_bytes());
  repack_device_matrix(packed, bytes);
  upload_matrix(bytes, 0, result.weight, stream);
  stream.synchronize();
  const Tensor bias = join_biases(parts, packed.num_rows);
  if (bias.defined()) result.bias = upload(bias, stream);
  return result;
}

Tensor upload(const Tensor& host, Stream& stream) {
  Tensor copy = Tensor::empty(host.shape(), host.dtype(), stream.device());
  copy_bytes({host.bytes(), host.device(), copy.bytes(), copy.device(), host.num_bytes()}, stream);
  stream.synchronize();
  return copy;
}

Tensor upload_f32(const Tensor& values, Stream& stream) {
  Tensor f32 = Tensor::empty(values.shape(), DType::kF32);
  cpu::convert(values, f32);
  return upload(f32, stream);
}

}  // namespace skipper::cuda
