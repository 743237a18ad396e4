#include "model/expert_hash.h"

#include <glog/logging.h>
#include <openssl/evp.h>

#include <array>
#include <memory>

#include "base/error.h"

namespace skipper {
namespace {

constexpr size_t kHashBytes = 8;

class Sha256 {
 public:
  Sha256() { CHECK(context_ && EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1); }

  void add(const Tensor& tensor) {
    if (tensor.defined()) CHECK_EQ(EVP_DigestUpdate(context_.get(), tensor.bytes(), tensor.num_bytes()), 1);
  }

  void add(const PackedMatrix& matrix) {
    add(matrix.codes);
    add(matrix.scales);
    add(matrix.zeros);
  }

  std::string first_digits() {
    std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
    CHECK_EQ(EVP_DigestFinal_ex(context_.get(), digest.data(), nullptr), 1);
    constexpr char kDigits[] = "0123456789abcdef";
    std::string text;
    for (size_t i = 0; i < kHashBytes; ++i) {
      text += kDigits[digest[i] >> 4];
      text += kDigits[digest[i] & 15];
    }
    return text;
  }

 private:
  struct Free {
    void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
  };
  std::unique_ptr<EVP_MD_CTX, Free> context_{EVP_MD_CTX_new()};
};

void require_hash(const ExpertId& id, const std::string& found, const std::string& expected) {
  if (found == expected) return;
  throw InvalidFile("expert " + std::to_string(id.expert) + " of MoE layer " + std::to_string(id.layer) + " has the hash " +
                    found + " in memory, but the plan says " + expected +
                    "; the checkpoint is damaged or not the plan's: download it again, or make the plan again");
}

ExpertMatrices matrices_of(const ExpertStore& store, int layer, size_t slot) {
  return {store.gate_up(layer)[slot], store.down(layer)[slot]};
}

}  // namespace

std::string expert_hash(const ExpertMatrices& matrices) {
  Sha256 hash;
  hash.add(matrices.gate_up);
  hash.add(matrices.down);
  return hash.first_digits();
}

void check_expert_hashes(const ExpertStore& store, const std::vector<std::vector<AssignedExpert>>& assigned,
                         ThreadPool& workers) {
  LoadQueue queue;
  for (int layer = 0; layer < store.num_layers(); ++layer) {
    for (size_t slot = 0; slot < store.slots(layer).size(); ++slot) {
      const std::string& expected = assigned[static_cast<size_t>(layer)][slot].hash;
      if (expected.empty() || store.slots(layer)[slot].tier == ExpertTier::kDisk) continue;
      const ExpertMatrices matrices = matrices_of(store, layer, slot);
      const ExpertId id{layer, store.slots(layer)[slot].expert};
      queue.add(matrices.gate_up.num_bytes() + matrices.down.num_bytes(),
                [matrices, id, &expected] { require_hash(id, expert_hash(matrices), expected); });
    }
  }
  queue.run(workers, nullptr);
}

std::vector<std::string> hashes_of_layer(const WeightSource& source, int moe_layer, std::span<const ExpertSlot> slots,
                                         ThreadPool& workers) {
  const ExpertStore store = load_expert_layer(source, moe_layer, slots, workers);
  std::vector<std::string> hashes(slots.size());
  workers.parallel_for(static_cast<int64_t>(slots.size()), [&](int64_t slot) {
    const auto s = static_cast<size_t>(slot);
    hashes[s] = expert_hash(matrices_of(store, moe_layer, s));
  });
  return hashes;
}

}  // namespace skipper
