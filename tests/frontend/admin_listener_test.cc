#include "frontend/admin_listener.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/error.h"
#include "frontend/http_server.h"
#include "raw_client.h"

namespace skipper {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

constexpr const char* kKeyHeader = "Authorization: Bearer secret\r\n";

// A listener in front of a table of levels that applies changes at once.
class AdminListener : public ::testing::Test {
 protected:
  AdminListener() {
    state_.table = unskipped_levels(2);
    const AdminHooks hooks{.report = [this] { return state(); },
                           .set_level = [this](int64_t level) { return set_level(level); },
                           .append = [this](OperatingPoint point) { return append(std::move(point)); },
                           .guard_state = [this] { return guard_; },
                           .arm_guard = [this] { return arm_guard(); }};
    ModelIdentity model;
    model.fingerprint = "abc";
    model.num_moe_layers = 2;
    model.num_experts = 4;
    const std::vector<std::string> measured = {R"({"kl": 0.0})"};
    const AdminContext context{.key = AdminKey("secret"), .model = model, .world = {}, .measured = measured, .hooks = hooks};
    EndpointTable endpoints = make_admin_endpoints(std::make_shared<const AdminContext>(context));
    server_ = std::make_unique<HttpServer>(admin_frontend_config(0), std::move(endpoints), metrics_);
    thread_ = std::thread([this] { server_->run(); });
  }

  ~AdminListener() override {
    server_->stop();
    thread_.join();
  }

  OperatingReport state() {
    const std::lock_guard lock(mutex_);
    return state_;
  }

  OperatingReport set_level(int64_t level) {
    const std::lock_guard lock(mutex_);
    if (level >= state_.table.num_levels()) throw InvalidRequest("level: " + std::to_string(level) + " does not exist", "level");
    state_.level = static_cast<int>(level);
    return state_;
  }

  OperatingReport append(OperatingPoint point) {
    const std::lock_guard lock(mutex_);
    state_.table.levels.push_back(std::move(point));
    ++state_.table.version;
    state_.level = state_.table.num_levels() - 1;
    return state_;
  }

  GuardState arm_guard() {
    guard_.serving = ExpertSet::kServed;
    guard_.breach.reset();
    ++guard_.term;
    return guard_;
  }

  RawResponse ask(const std::string& request) {
    RawClient client(server_->port());
    client.send(request);
    return client.read_response();
  }

  RawResponse change(const std::string& body, const char* headers = kKeyHeader) {
    return ask(post("/admin/operating_point", body, headers));
  }

  RawResponse look(const std::string& headers = kKeyHeader) {
    return ask("GET /admin/operating_point HTTP/1.1\r\nHost: a\r\n" + headers + "\r\n");
  }

  static json valid_point() {
    return {{"alpha", {{"text", {0.5, 0.5}}, {"vision", {0.25, 0.75}}}}, {"tau", {{"text", 0.125}, {"vision", 0.5}}}};
  }

  static json error_of(const RawResponse& response) { return json::parse(response.body).at("error"); }

  std::mutex mutex_;
  GuardState guard_{.served = "plan.json"};  // asked for by one request at a time
  OperatingReport state_;
  MetricsRegistry metrics_{"demo", 1};
  std::unique_ptr<HttpServer> server_;
  std::thread thread_;
};

TEST_F(AdminListener, TellsWhatIsInForce) {
  const RawResponse response = look();
  ASSERT_EQ(response.status, 200) << response.body;
  const json body = json::parse(response.body);
  EXPECT_EQ(body["level"], 0);
  EXPECT_EQ(body["table_version"], 1);
  ASSERT_EQ(body["levels"].size(), 1u);
  EXPECT_EQ(body["levels"][0]["tau"], json({{"text", 0.0}, {"vision", 0.0}}));
  EXPECT_EQ(body["levels"][0]["measured"], json({{"kl", 0.0}}));
}

TEST_F(AdminListener, TellsWhereSkippingIsSwitchedOff) {
  {
    const std::lock_guard lock(mutex_);
    state_.places = {0};
    state_.switched_off = {{.moe_layer = 1, .phase = TokenPhase::kGenerated, .cost_seconds = 0.5, .saving_seconds = 0.25}};
  }
  const json body = json::parse(look().body);
  EXPECT_EQ(body["places"], json::array({0}));
  EXPECT_EQ(body["switched_off"],
            json::array({{{"layer", 1}, {"phase", "generated"}, {"deciding_ms", 500.0}, {"saved_ms", 250.0}}}));
}

TEST_F(AdminListener, RefusesEverybodyWithoutTheKey) {
  for (const char* headers : {"", "Authorization: Bearer wrong\r\n", "Authorization: secret\r\n", "Authorization: Bearer\r\n"}) {
    const RawResponse response = look(headers);
    EXPECT_EQ(response.status, 401) << headers;
    EXPECT_EQ(response.headers.at("www-authenticate"), "Bearer");
    EXPECT_EQ(error_of(response)["code"], "invalid_api_key");
    EXPECT_EQ(error_of(response)["type"], "invalid_request_error");
    EXPECT_EQ(change(R"({"level": 0})", headers).status, 401);
  }
}

TEST_F(AdminListener, AnUploadedPointBecomesALevelAndTheGlobalOne) {
  const RawResponse response = change(valid_point().dump());
  ASSERT_EQ(response.status, 200) << response.body;
  const json body = json::parse(response.body);
  EXPECT_EQ(body["level"], 1);
  EXPECT_EQ(body["table_version"], 2);
  EXPECT_EQ(body["levels"][1], valid_point());
  EXPECT_EQ(state().table.levels.at(1).tau, (std::array<float, 2>{0.125f, 0.5f}));
  EXPECT_EQ(json::parse(change(R"({"level": 0})").body)["level"], 0);
  // What GET shows can be sent back, with what was measured.
  const json shown = json::parse(look().body)["levels"][0];
  EXPECT_EQ(change(shown.dump()).status, 200);
}

TEST_F(AdminListener, RefusesBadPointsLikeTheFileLoader) {
  const auto message_for = [&](const std::string& key, const json& value) {
    json point = valid_point();
    point[key] = value;
    const RawResponse response = change(point.dump());
    EXPECT_EQ(response.status, 400) << point;
    return error_of(response)["message"].get<std::string>();
  };
  EXPECT_THAT(message_for("tau", {{"text", -1}, {"vision", 0}}), HasSubstr("operating point: tau: text: -1 is out of range"));
  EXPECT_THAT(message_for("alpha", {{"text", {1.0}}, {"vision", {0.5, 0.5}}}), HasSubstr("has 1 numbers but the model has 2"));
  EXPECT_THAT(message_for("taus", 1), HasSubstr("taus"));
  EXPECT_THAT(message_for("model_fingerprint", "xyz"), HasSubstr("made for model xyz but the loaded model is abc"));
  EXPECT_THAT(message_for("levels", json::array()), HasSubstr("one operating point at a time"));
  EXPECT_THAT(message_for("level", 0), HasSubstr("does not go with level"));
  EXPECT_EQ(state().table.num_levels(), 1);
}

TEST_F(AdminListener, RefusesBadBodiesAndLevels) {
  for (const char* body : {"", "{", "[]", "7", "null", "\"level\"", "{\"level\": 1e300}", "{\"level\": \"1\"}", "{\"level\": -1}",
                           "{\"level\": 0.5}", "{\"level\": 7}", "{}", "{\"level\": 0, \"level\": 0}", "\xff\xfe",
                           "{\"tau\": NaN}"}) {
    const RawResponse response = change(body);
    EXPECT_EQ(response.status, 400) << body;
    EXPECT_FALSE(error_of(response)["message"].get<std::string>().empty());
  }
  EXPECT_EQ(error_of(change(R"({"level": 7})"))["param"], "level");
  EXPECT_EQ(state().level, 0);
}

TEST_F(AdminListener, RefusesOtherPathsMethodsAndSizes) {
  EXPECT_EQ(ask(get("/admin/other")).status, 404);
  EXPECT_EQ(ask(get("/v1/models")).status, 404);
  const RawResponse wrong = ask(get("/admin/operating_point", "DELETE"));
  EXPECT_EQ(wrong.status, 405);
  EXPECT_EQ(wrong.headers.at("allow"), "GET, HEAD, POST");
  RawClient client(server_->port());
  client.send("POST /admin/operating_point HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n");
  EXPECT_EQ(client.read_response().status, 413);
}

TEST_F(AdminListener, TellsWhatTheGuardFoundAndArmsItAgain) {
  guard_.serving = ExpertSet::kReference;
  guard_.breach = GuardBreach{.measured = 0.5, .threshold = 0.25, .num_samples = 9, .rank = 1, .moe_layer = 2, .expert = 3};
  guard_.rollback_step = 7;
  guard_.num_rollbacks = 1;
  const json found = json::parse(ask("GET /admin/guard HTTP/1.1\r\nHost: a\r\n" + std::string(kKeyHeader) + "\r\n").body);
  EXPECT_EQ(found["serves"], "reference");
  EXPECT_EQ(found["breach"]["step"], 7);
  EXPECT_EQ(found["breach"]["text"], "expert 3 of MoE layer 2 on rank 1: relative error 0.5 over 0.25 (9 rows)");
  EXPECT_TRUE(found["worst"].is_null());
  for (const char* body : {"", "[]", "{}", "{\"arm\": 1}", "{\"arm\": true, \"level\": 1}"}) {
    EXPECT_EQ(ask(post("/admin/guard", body, kKeyHeader)).status, 400) << body;
  }
  EXPECT_EQ(ask(post("/admin/guard", "{\"arm\": true}", "")).status, 401);
  const json armed = json::parse(ask(post("/admin/guard", "{\"arm\": true}", kKeyHeader)).body);
  EXPECT_EQ(armed["serves"], "plan.json");
  EXPECT_EQ(armed["term"], 1);
  EXPECT_TRUE(armed["breach"].is_null());
}

}  // namespace
}  // namespace skipper
