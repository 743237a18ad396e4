// Shape, element type and device over an owned or borrowed buffer. Contiguous, row-major; no math lives here.
#pragma once

#include <glog/logging.h>

#include <array>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>

#include "tensor/device.h"
#include "tensor/dtype.h"

namespace skipper {

// Dimensions of a tensor, outermost first; up to five of them, none negative.
class Shape {
 public:
  static constexpr int kMaxRank = 5;

  Shape() = default;
  Shape(std::initializer_list<int64_t> dims);
  explicit Shape(std::span<const int64_t> dims);

  int rank() const { return rank_; }
  int64_t operator[](int axis) const;
  int64_t num_elements() const;
  Shape with_first(int64_t dim) const;
  std::string to_string() const;  // "[32, 256, 192]"
  friend bool operator==(const Shape&, const Shape&) = default;

 private:
  std::array<int64_t, kMaxRank> dims_{};
  int rank_ = 0;
};

// A handle with value semantics: copies share the buffer. An owned buffer is freed with its last handle; a borrowed one
// must outlive every handle (a memory-mapped checkpoint does). Thread-safe as long as nobody writes the elements.
class Tensor {
 public:
  Tensor() = default;

  // Uninitialised memory, aligned to 64 bytes. Throws DeviceError when there is none.
  static Tensor empty(const Shape& shape, DType dtype, Device device = Device::host());
  static Tensor zeros(const Shape& shape, DType dtype, Device device = Device::host());
  static Tensor borrow(void* data, const Shape& shape, DType dtype, Device device = Device::host());
  // For read-only memory such as a mapped file: writing through the tensor is a bug and faults.
  static Tensor borrow_const(const void* data, const Shape& shape, DType dtype, Device device = Device::host());

  bool defined() const { return data_ != nullptr; }
  const Shape& shape() const { return shape_; }
  int64_t dim(int axis) const { return shape_[axis]; }
  int64_t num_elements() const { return shape_.num_elements(); }
  size_t num_bytes() const { return static_cast<size_t>(num_elements()) * size_of(dtype_); }
  DType dtype() const { return dtype_; }
  Device device() const { return device_; }
  bool on_gpu() const { return device_.kind == DeviceKind::kCuda; }

  std::byte* bytes() { return data_; }
  const std::byte* bytes() const { return data_; }

  // Typed access; T must be the tensor's element type.
  template <typename T>
  T* data() {
    CHECK(dtype_of<T>::value == dtype_) << "tensor holds " << name_of(dtype_);
    return reinterpret_cast<T*>(data_);
  }
  template <typename T>
  const T* data() const {
    CHECK(dtype_of<T>::value == dtype_) << "tensor holds " << name_of(dtype_);
    return reinterpret_cast<const T*>(data_);
  }
  template <typename T>
  std::span<T> span() {
    return {data<T>(), static_cast<size_t>(num_elements())};
  }
  template <typename T>
  std::span<const T> span() const {
    return {data<T>(), static_cast<size_t>(num_elements())};
  }
  // Row `i` of the outermost axis.
  template <typename T>
  T* row(int64_t i) {
    return data<T>() + i * row_elements();
  }
  template <typename T>
  const T* row(int64_t i) const {
    return data<T>() + i * row_elements();
  }
  int64_t row_elements() const { return shape_[0] == 0 ? 0 : num_elements() / shape_[0]; }

  // Rows [begin, end) of the outermost axis; shares the buffer.
  Tensor slice(int64_t begin, int64_t end) const;
  // The first `count` rows.
  Tensor first(int64_t count) const { return slice(0, count); }
  // Element `i` of the outermost axis, that axis removed: [E, I, H] → [I, H].
  Tensor at(int64_t i) const;
  // The same elements in another shape of equal size.
  Tensor reshaped(const Shape& shape) const;

 private:
  std::shared_ptr<std::byte> owner_;  // empty for borrowed memory
  std::byte* data_ = nullptr;
  Shape shape_;
  DType dtype_ = DType::kF32;
  Device device_;
};

}  // namespace skipper
