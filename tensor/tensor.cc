#include "tensor/tensor.h"

#include <cstring>
#include <sstream>

#include "tensor/device_runtime.h"

namespace skipper {

Shape::Shape(std::initializer_list<int64_t> dims) : Shape(std::span<const int64_t>(dims.begin(), dims.size())) {}

Shape::Shape(std::span<const int64_t> dims) : rank_(static_cast<int>(dims.size())) {
  CHECK_LE(dims.size(), static_cast<size_t>(kMaxRank));
  for (size_t i = 0; i < dims.size(); ++i) {
    CHECK_GE(dims[i], 0);
    dims_[i] = dims[i];
  }
}

int64_t Shape::operator[](int axis) const {
  DCHECK(axis >= 0 && axis < rank_) << "axis " << axis << " of " << to_string();
  return dims_[static_cast<size_t>(axis)];
}

int64_t Shape::num_elements() const {
  int64_t count = 1;
  for (int i = 0; i < rank_; ++i) count *= dims_[static_cast<size_t>(i)];
  return count;
}

Shape Shape::with_first(int64_t dim) const {
  CHECK_GT(rank_, 0);
  Shape result = *this;
  result.dims_[0] = dim;
  return result;
}

std::string Shape::to_string() const {
  std::ostringstream text;
  text << '[';
  for (int i = 0; i < rank_; ++i) text << (i == 0 ? "" : ", ") << dims_[static_cast<size_t>(i)];
  text << ']';
  return text.str();
}

Tensor Tensor::empty(const Shape& shape, DType dtype, Device device) {
  Tensor result = borrow(nullptr, shape, dtype, device);
  result.owner_ = allocate(result.num_bytes(), device);
  result.data_ = result.owner_.get();
  return result;
}

Tensor Tensor::zeros(const Shape& shape, DType dtype, Device device) {
  Tensor result = empty(shape, dtype, device);
  fill_zero(result.bytes(), result.num_bytes(), device);
  return result;
}

Tensor Tensor::borrow(void* data, const Shape& shape, DType dtype, Device device) {
  Tensor result;
  result.data_ = static_cast<std::byte*>(data);
  result.shape_ = shape;
  result.dtype_ = dtype;
  result.device_ = device;
  return result;
}

Tensor Tensor::borrow_const(const void* data, const Shape& shape, DType dtype, Device device) {
  return borrow(const_cast<void*>(data), shape, dtype, device);
}

Tensor Tensor::slice(int64_t begin, int64_t end) const {
  CHECK(0 <= begin && begin <= end && end <= dim(0)) << "[" << begin << ", " << end << ") of " << shape_.to_string();
  Tensor result = *this;
  result.data_ += static_cast<size_t>(begin * row_elements()) * size_of(dtype_);
  result.shape_ = shape_.with_first(end - begin);
  return result;
}

Tensor Tensor::at(int64_t i) const {
  Tensor result = slice(i, i + 1);
  std::array<int64_t, Shape::kMaxRank> rest{};
  for (int axis = 1; axis < shape_.rank(); ++axis) rest[static_cast<size_t>(axis - 1)] = shape_[axis];
  result.shape_ = Shape(std::span<const int64_t>(rest.data(), static_cast<size_t>(shape_.rank() - 1)));
  return result;
}

Tensor Tensor::reshaped(const Shape& shape) const {
  CHECK_EQ(shape.num_elements(), num_elements()) << shape_.to_string() << " → " << shape.to_string();
  Tensor result = *this;
  result.shape_ = shape;
  return result;
}

}  // namespace skipper
