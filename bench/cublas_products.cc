#include "bench/cublas_products.h"

#include <cublasLt.h>
#include <cublas_v2.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <type_traits>

#include "base/error.h"
#include "bench/gpu_clock.h"
#include "bench/gpu_tensors.h"

namespace skipper::cuda {
namespace {

constexpr size_t kWorkspaceBytes = size_t{64} << 20;
constexpr int kProposals = 16;
constexpr int kRunsOfProposal = 4;

void check(cublasStatus_t status, const char* call) {
  if (status != CUBLAS_STATUS_SUCCESS) throw DeviceError(std::string(call) + ": " + cublasGetStatusString(status));
}

cudaStream_t native(Stream& stream) { return static_cast<cudaStream_t>(stream.native()); }

template <typename Handle, cublasStatus_t (*kDestroy)(Handle)>
struct Destroy {
  void operator()(Handle handle) const { kDestroy(handle); }
};
template <typename Handle, cublasStatus_t (*kDestroy)(Handle)>
using Owned = std::unique_ptr<std::remove_pointer_t<Handle>, Destroy<Handle, kDestroy>>;

using Library = Owned<cublasLtHandle_t, cublasLtDestroy>;
using Product = Owned<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy>;
using Layout = Owned<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;
using Preference = Owned<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>;
using GroupedLibrary = Owned<cublasHandle_t, cublasDestroy>;

Library make_library() {
  cublasLtHandle_t handle = nullptr;
  check(cublasLtCreate(&handle), "cublasLtCreate");
  return Library(handle);
}

// The library's matrices are column by column: a row-major [rows, columns] is its [columns, rows].
Layout layout_of(const Tensor& matrix) {
  cublasLtMatrixLayout_t layout = nullptr;
  const cudaDataType_t type = matrix.dtype() == DType::kF32 ? CUDA_R_32F : CUDA_R_16BF;
  check(cublasLtMatrixLayoutCreate(&layout, type, static_cast<uint64_t>(matrix.dim(1)), static_cast<uint64_t>(matrix.dim(0)),
                                   matrix.dim(1)),
        "cublasLtMatrixLayoutCreate");
  return Layout(layout);
}

// yᵀ = w · xᵀ, where the library sees w as transposed.
Product make_product() {
  cublasLtMatmulDesc_t product = nullptr;
  check(cublasLtMatmulDescCreate(&product, CUBLAS_COMPUTE_32F, CUDA_R_32F), "cublasLtMatmulDescCreate");
  const cublasOperation_t transposed = CUBLAS_OP_T;
  check(cublasLtMatmulDescSetAttribute(product, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof(transposed)),
        "cublasLtMatmulDescSetAttribute");
  return Product(product);
}

Preference make_preference() {
  cublasLtMatmulPreference_t preference = nullptr;
  check(cublasLtMatmulPreferenceCreate(&preference), "cublasLtMatmulPreferenceCreate");
  check(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &kWorkspaceBytes,
                                             sizeof(kWorkspaceBytes)),
        "cublasLtMatmulPreferenceSetAttribute");
  return Preference(preference);
}

}  // namespace

struct CublasLtProduct::State {
  Library library;
  Product product;
  Layout w, x, y;
  Tensor workspace;
  cublasLtMatmulAlgo_t algorithm;
};

CublasLtProduct::CublasLtProduct(const Tensor& x, const Tensor& w, Tensor& y, Stream& stream)
    : state_(new State{make_library(), make_product(), layout_of(w), layout_of(x), layout_of(y),
                       Tensor::empty({static_cast<int64_t>(kWorkspaceBytes)}, DType::kU8, stream.device()),
                       {}}) {
  std::vector<cublasLtMatmulHeuristicResult_t> proposals(kProposals);
  int count = 0;
  check(cublasLtMatmulAlgoGetHeuristic(state_->library.get(), state_->product.get(), state_->w.get(), state_->x.get(),
                                       state_->y.get(), state_->y.get(), make_preference().get(), kProposals, proposals.data(),
                                       &count),
        "cublasLtMatmulAlgoGetHeuristic");
  if (count == 0) throw DeviceError("cublasLtMatmulAlgoGetHeuristic proposes nothing for " + y.shape().to_string());
  double best_seconds = INFINITY;
  cublasLtMatmulAlgo_t best{};
  for (int i = 0; i < count; ++i) {
    state_->algorithm = proposals[static_cast<size_t>(i)].algo;
    const double seconds = graph_seconds(kRunsOfProposal, [&](int) { run(x, w, y, stream); }, stream);
    if (seconds < best_seconds) best = state_->algorithm;
    best_seconds = std::min(best_seconds, seconds);
  }
  state_->algorithm = best;
}

CublasLtProduct::~CublasLtProduct() = default;

void CublasLtProduct::run(const Tensor& x, const Tensor& w, Tensor& y, Stream& stream) const {
  const float one = 1.0f, zero = 0.0f;
  check(cublasLtMatmul(state_->library.get(), state_->product.get(), &one, w.bytes(), state_->w.get(), x.bytes(),
                       state_->x.get(), &zero, y.bytes(), state_->y.get(), y.bytes(), state_->y.get(), &state_->algorithm,
                       state_->workspace.bytes(), kWorkspaceBytes, native(stream)),
        "cublasLtMatmul");
}

struct CublasGroupedProduct::State {
  GroupedLibrary library;
  std::vector<int> m, n, k;
  std::vector<int> group_size;
  std::vector<float> one, zero;
  std::vector<cublasOperation_t> transposed, plain;
  Tensor w_pointers, x_pointers, y_pointers;  // [groups] i64 on the GPU
};

CublasGroupedProduct::CublasGroupedProduct(const std::vector<int32_t>& offsets, const Tensor& x, const Tensor& weights, Tensor& y,
                                           Stream& stream)
    : state_(new State) {
  cublasHandle_t handle = nullptr;
  check(cublasCreate(&handle), "cublasCreate");
  state_->library.reset(handle);
  check(cublasSetStream(handle, native(stream)), "cublasSetStream");
  std::vector<const std::byte*> w_pointers, x_pointers, y_pointers;
  for (size_t e = 0; e + 1 < offsets.size(); ++e) {
    if (offsets[e] == offsets[e + 1]) continue;
    state_->n.push_back(offsets[e + 1] - offsets[e]);
    w_pointers.push_back(weights.at(static_cast<int64_t>(e)).bytes());
    x_pointers.push_back(x.bytes() + offsets[e] * x.dim(1) * static_cast<int64_t>(sizeof(bf16)));
    y_pointers.push_back(y.bytes() + offsets[e] * y.dim(1) * static_cast<int64_t>(sizeof(bf16)));
  }
  const size_t count = state_->n.size();
  state_->m.assign(count, static_cast<int>(weights.dim(1)));
  state_->k.assign(count, static_cast<int>(weights.dim(2)));
  state_->group_size.assign(count, 1);
  state_->one.assign(count, 1.0f);
  state_->zero.assign(count, 0.0f);
  state_->transposed.assign(count, CUBLAS_OP_T);
  state_->plain.assign(count, CUBLAS_OP_N);
  const auto on_gpu = [&](const std::vector<const std::byte*>& pointers) {
    return to_gpu(Tensor::borrow_const(pointers.data(), {static_cast<int64_t>(count)}, DType::kI64), stream);
  };
  state_->w_pointers = on_gpu(w_pointers);
  state_->x_pointers = on_gpu(x_pointers);
  state_->y_pointers = on_gpu(y_pointers);
}

CublasGroupedProduct::CublasGroupedProduct(CublasGroupedProduct&&) noexcept = default;
CublasGroupedProduct::~CublasGroupedProduct() = default;

void CublasGroupedProduct::run(Stream& stream) const {
  check(cublasSetStream(state_->library.get(), native(stream)), "cublasSetStream");
  const State& s = *state_;
  check(cublasGemmGroupedBatchedEx(
            s.library.get(), s.transposed.data(), s.plain.data(), s.m.data(), s.n.data(), s.k.data(), s.one.data(),
            reinterpret_cast<const void* const*>(s.w_pointers.bytes()), CUDA_R_16BF, s.k.data(),
            reinterpret_cast<const void* const*>(s.x_pointers.bytes()), CUDA_R_16BF, s.k.data(), s.zero.data(),
            reinterpret_cast<void* const*>(state_->y_pointers.bytes()), CUDA_R_16BF, s.m.data(), static_cast<int>(s.n.size()),
            s.group_size.data(), CUBLAS_COMPUTE_32F),
        "cublasGemmGroupedBatchedEx");
}

}  // namespace skipper::cuda
