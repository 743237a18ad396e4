#include "configs/server_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace skipper {
namespace {

using testing::HasSubstr;

ServerConfig load(const std::string& json) {
  const std::string path = testing::TempDir() + "/server_config.json";
  std::ofstream(path) << json;
  return load_server_config(path);
}

std::string error_of(const std::string& json) {
  try {
    load(json).validate();
  } catch (const InvalidFile& e) {
    return e.what();
  }
  return "accepted";
}

TEST(ServerConfig, DefaultsAreValid) {
  EXPECT_NO_THROW(load_server_config("").validate());
}

TEST(ServerConfig, ReadsEverySectionAndKeepsOtherDefaults) {
  const ServerConfig config = load(R"({"engine": {"max_tokens_per_step": 99}, "cpu": {"threads": 3},
      "weights": {"experts": "int4a-g32", "activation_dtype": "f32", "residence": "mapped"},
      "comm": {"deadline_ms": 1234}, "frontend": {"port": 0, "host": "0.0.0.0"}, "dispatch": {"payload_dtype": "int8"},
      "kv_cache": {"dtype": "f32"}, "images": {"max_pixels": 5000}, "service_tiers": {"bronze": 1},
      "skipping": {"switch_off": false, "window_steps": 7},
      "guard": {"share": 0.25, "max_error_ratio": 3, "min_rows": 5, "reference_experts": "int8-g64", "log": "guard.jsonl"}})");
  EXPECT_EQ(config.engine.max_tokens_per_step, 99);
  EXPECT_EQ(config.engine.max_sequences_per_rank, EngineConfig().max_sequences_per_rank);
  EXPECT_EQ(config.cpu.threads, 3);
  EXPECT_EQ(config.weights.experts, (WeightFormat{WeightKind::kInt4Asymmetric, 32}));
  EXPECT_EQ(config.weights.dense, std::nullopt);
  EXPECT_EQ(config.weights.activation_dtype, DType::kF32);
  EXPECT_EQ(config.weights.residence, WeightResidence::kMapped);
  EXPECT_EQ(config.comm.deadline.count(), 1234);
  EXPECT_EQ(config.frontend.host, "0.0.0.0");
  EXPECT_EQ(config.dispatch.payload_format, PayloadFormat::kInt8);
  EXPECT_EQ(config.dispatch.combine_dtype, DType::kBF16);
  EXPECT_TRUE(config.dispatch.rows_travel());
  EXPECT_EQ(config.kv_dtype, DType::kF32);
  EXPECT_EQ(config.images.max_pixels, 5000);
  EXPECT_FALSE(config.skipping.switch_off);
  EXPECT_EQ(config.skipping.window_steps, 7);
  EXPECT_EQ(config.guard.share, 0.25);
  EXPECT_EQ(config.guard.request_share, 0.0);
  EXPECT_EQ(config.guard.max_error_ratio, 3.0);
  EXPECT_EQ(config.guard.min_rows, 5);
  EXPECT_EQ(name_of(config.guard.reference_format()), "int8-g64");
  EXPECT_EQ(config.guard.log, "guard.jsonl");
  EXPECT_EQ(config.service_tiers, (std::map<std::string, int64_t>{{"bronze", 1}, {"gold", 0}}));
}

TEST(ServerConfig, WhatItPrintsItReadsBack) {
  ServerConfig config = load_server_config("");
  config.engine.queue_capacity = 17;
  config.weights.dense = WeightFormat{WeightKind::kInt8, 64};
  config.weights.residence = WeightResidence::kMapped;
  config.frontend.max_images = 3;
  config.dispatch.payload_format = PayloadFormat::kFp8;
  config.dispatch.payload = PayloadTravel::kOff;
  config.service_tiers["silver"] = 1;
  config.tier_policies["silver"] = "small";
  config.policies = {.plans = {{"quality", "q.json"}, {"small", "s.json"}}, .first = "small"};
  EXPECT_EQ(describe(load(describe(config))), describe(config));
}

TEST(ServerConfig, ErrorsNameTheFullKey) {
  EXPECT_THAT(error_of(R"({"engin": {}})"), HasSubstr("did you mean 'engine'?"));
  EXPECT_THAT(error_of(R"({"engine": {"queue_capacityy": 1}})"), HasSubstr("did you mean 'queue_capacity'?"));
  EXPECT_THAT(error_of(R"({"engine": {"queue_capacity": "many"}})"), HasSubstr("engine: queue_capacity: expected an integer"));
  EXPECT_THAT(error_of(R"({"engine": {"queue_capacity": 0}})"), HasSubstr("engine.queue_capacity: 0"));
  EXPECT_THAT(error_of(R"({"cpu": {"threads": -1}})"), HasSubstr("cpu.threads: -1"));
  EXPECT_THAT(error_of(R"({"cpu": {"threads": 1025}})"), HasSubstr("cpu.threads: 1025"));
  EXPECT_THAT(error_of(R"({"weights": {"experts": "int8-g65"}})"), HasSubstr("weights: experts"));
  EXPECT_THAT(error_of(R"({"weights": {"residence": "disk"}})"), HasSubstr("weights: residence: 'disk'"));
  EXPECT_THAT(error_of(R"({"engine": 3})"), HasSubstr("engine: expected an object"));
  EXPECT_THAT(error_of(R"({"kv_cache": {"dtype": "fp4"}})"), HasSubstr("'fp4' is not supported"));
  EXPECT_THAT(error_of(R"({"dispatch": {"payload_dtype": "int4"}})"),
              HasSubstr("dispatch: payload_dtype: 'int4' is not supported; use one of f32, bf16, int8, fp8"));
  for (const char* bad : {"", "Off", "none"}) {
    EXPECT_THAT(error_of(R"({"dispatch": {"payload": ")" + std::string(bad) + R"("}})"),
                HasSubstr("dispatch: payload: '" + std::string(bad) + "' is not supported; use on, or off"));
  }
  EXPECT_THAT(error_of(R"({"dispatch": {"payload": false}})"), HasSubstr("dispatch: payload: expected a string"));
  EXPECT_THAT(error_of(R"({"dispatch": {"combine_dtype": "int8"}})"), HasSubstr("'int8' is not supported; use bf16 or f32"));
  EXPECT_THAT(error_of(R"({"service_tiers": {"gold": 1}})"), HasSubstr("service_tiers.gold: 1"));
  EXPECT_THAT(error_of(R"({"service_tiers": {"gold": {"level": 0, "polici": "a"}}})"),
              HasSubstr("service_tiers: gold: policy: is missing"));
}

TEST(ServerConfig, ReadsPoliciesInTheirOrderAndTheLowestOfATier) {
  const ServerConfig config = load(R"({"service_tiers": {"silver": {"level": 2, "policy": "b"}, "bronze": 3},
      "policies": {"plans": [{"name": "z", "plan": "1.json"}, {"name": "b", "plan": "2.json"}], "first": "b"}})");
  EXPECT_EQ(config.service_tiers, (std::map<std::string, int64_t>{{"bronze", 3}, {"gold", 0}, {"silver", 2}}));
  EXPECT_EQ(config.tier_policies, (std::map<std::string, std::string>{{"silver", "b"}}));
  ASSERT_EQ(config.policies.plans.size(), 2u);
  EXPECT_EQ(config.policies.plans[0].name, "z");
  EXPECT_EQ(config.policies.plans[1].plan, "2.json");
  EXPECT_EQ(config.policies.first, "b");
}

TEST(ServerConfig, RefusesPoliciesThatAreNone) {
  EXPECT_THAT(error_of(R"({"policies": {"plans": []}})"), HasSubstr("policies: plans: expected a list of"));
  EXPECT_THAT(error_of(R"({"policies": {"plans": [{"name": "a"}]}})"), HasSubstr("policies.plans[0]: plan"));
  EXPECT_THAT(error_of(R"({"policies": {"plans": [{"name": "a", "plan": "x"}, {"name": "a", "plan": "y"}]}})"),
              HasSubstr("policies.plans[1]: name: there are two policies 'a'"));
  EXPECT_THAT(error_of(R"({"policies": {"plans": [{"name": "a", "plan": "x"}], "firsst": "a"}})"),
              HasSubstr("did you mean 'first'?"));
}

}  // namespace
}  // namespace skipper
