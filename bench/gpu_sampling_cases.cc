#include "bench/gpu_sampling_cases.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "bench/gpu_tensors.h"
#include "kernels/cuda/token_sampling.h"

namespace skipper::cuda {
namespace {

constexpr int64_t kVocabulary = 151'936;
// Logits of deviation 1 at this temperature are spread like those of deviation 3 at temperature 1.
constexpr float kTemperature = 1.0f / 3.0f;

struct SamplingKind {
  const char* name;
  TokenSampling sampling;
};
constexpr SamplingKind kKinds[] = {{"greedy", {}},
                                   {"drawn", {.temperature = kTemperature}},
                                   {"top-p 0.95", {.temperature = kTemperature, .top_p = 0.95f}},
                                   {"top-k 50, top-p 0.95", {.temperature = kTemperature, .top_p = 0.95f, .top_k = 50}}};

struct SampledRows {
  SampledRows(int64_t num_rows, const TokenSampling& kind, Stream& stream);

  std::vector<TokenSampling> samplings;
  Tensor logits, packed_samplings, ids;
};

SampledRows::SampledRows(int64_t num_rows, const TokenSampling& kind, Stream& stream) {
  Tensor host = Tensor::empty({num_rows, static_cast<int64_t>(sizeof(PackedTokenSampling))}, DType::kU8);
  for (int64_t row = 0; row < num_rows; ++row) {
    TokenSampling& sampling = samplings.emplace_back(kind);
    sampling.random = 0x9e3779b97f4a7c15u * static_cast<uint64_t>(row + 1);
    const PackedTokenSampling packed_sampling = packed(sampling);
    std::memcpy(host.row<uint8_t>(row), &packed_sampling, sizeof(packed_sampling));
  }
  logits = random_on_gpu({num_rows, kVocabulary}, DType::kF32, 1, stream);
  packed_samplings = to_gpu(host, stream);
  ids = Tensor::empty({num_rows}, DType::kI32, stream.device());
}

void sample(SampledRows& rows, Stream& stream) { sample_tokens(rows.logits, rows.packed_samplings, rows.ids, stream); }

// Share of the first rows whose token is not the host's.
double token_error(SampledRows& rows, Stream& stream) {
  constexpr int64_t kMostChecked = 8;
  sample(rows, stream);
  const int64_t num_checked = std::min(kMostChecked, rows.ids.num_elements());
  Tensor logits = to_host(rows.logits.first(num_checked), stream);
  const Tensor ids = to_host(rows.ids, stream);
  int64_t num_wrong = 0;
  for (int64_t row = 0; row < num_checked; ++row) {
    const int32_t expected = sample_token({logits.row<float>(row), kVocabulary}, rows.samplings[static_cast<size_t>(row)]);
    num_wrong += ids.data<int32_t>()[row] == expected ? 0 : 1;
  }
  return static_cast<double>(num_wrong) / static_cast<double>(num_checked);
}

}  // namespace

void visit_sampling_cases(const CaseFilter& filter, const CaseVisitor& visit, Stream& stream) {
  for (const int64_t num_rows : {1, 32, 128}) {
    for (const SamplingKind& kind : kKinds) {
      GpuKernelCase sampling_case;
      sampling_case.name = std::string("sampling, ") + kind.name + ' ' + std::to_string(num_rows) + " rows";
      if (!filter(sampling_case.name)) continue;
      SampledRows rows(num_rows, kind.sampling, stream);
      sampling_case.num_bytes = static_cast<double>(rows.logits.num_bytes());
      sampling_case.measure_error = [&] { return token_error(rows, stream); };
      sampling_case.run = [&](int) { sample(rows, stream); };
      visit(sampling_case);
    }
  }
}

}  // namespace skipper::cuda
