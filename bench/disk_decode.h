// One stream that decodes with experts in memory or on disk, along planted routes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <vector>

#include "base/thread_pool.h"
#include "bench/known_routes.h"
#include "bench/token_streams.h"
#include "cluster/cluster_topology.h"
#include "cluster/operating_point.h"
#include "comm/communicator.h"
#include "model/kv_cache.h"
#include "model/multimodal_model.h"
#include "residency/disk_reading.h"

namespace skipper {

enum class KnownForesight : uint8_t { kNone, kOracle, kWrong };
enum class KnownEviction : uint8_t { kNone, kBelady };

struct DiskDecodeConfig {
  std::filesystem::path model;
  WeightFormat format;                    // of all experts
  std::optional<DiskConfig> disk;         // all experts rest there; without it in memory
  KnownEviction eviction = KnownEviction::kNone;     // in place of the disk's rules
  KnownForesight foresight = KnownForesight::kNone;
  int64_t context = 0;                    // tokens before the first that decodes
  int64_t prompt = 0;                     // tokens of the prompt that prefill() runs; 0: none
};

// What one run has cost.
struct DecodeRun {
  std::vector<int32_t> tokens;  // the likeliest after each
  double seconds = 0.0;
  DiskReading disk;             // since start
};

// Engine thread only. References outlive it.
class DiskDecode {
 public:
  // Loads the model, and runs the context with routes of its own router. `routes` are one token a step, as many as will decode.
  DiskDecode(const DiskDecodeConfig& config, const RouteTrace& routes, Communicator& data, const ClusterTopology& topology,
             ThreadPool& workers);
  ~DiskDecode();

  // The next tokens of the stream. Throws Error when the routes end before.
  DecodeRun decode(int64_t num_tokens);
  // A prompt in one step, with its router's routes; the token is the likeliest after it.
  DecodeRun prefill();
  // Since start, that of the context included.
  DiskReading reading() const;

 private:
  void load(const ClusterTopology& topology);
  WeightLoading loading();
  void plant(const MoeLayerConfig& layer, const Routing& kept);
  int32_t likeliest(const Tensor& logits) const;

  DiskDecodeConfig config_;
  Communicator& data_;
  ThreadPool& workers_;
  Stream stream_;
  ModelConfig model_config_;
  LevelTable levels_;
  RouteCursor cursor_;
  std::unique_ptr<MultimodalModel> model_;
  std::unique_ptr<KvCache> cache_;
  std::unique_ptr<TokenStream> tokens_;
  std::unique_ptr<TokenStream> prompt_;
  std::unique_ptr<StreamBatch> batch_;
  int64_t num_steps_ = 0;   // decoded
  bool is_planting_ = false;
};

}  // namespace skipper
