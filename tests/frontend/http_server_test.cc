// Probes, listening, limits on connections, and the end.
#include "frontend/http_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "base/error.h"
#include "frontend/admin_endpoints.h"
#include "server_fixture.h"

namespace skipper {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using std::chrono_literals::operator""ms;
using std::chrono_literals::operator""s;
using std::chrono_literals::operator""h;
using Phase = EngineStatus::Phase;

class HttpServerTest : public ServerTest {
 protected:
  static EndpointTable no_endpoints() { return EndpointTable({}); }

  std::string refusal(const FrontendConfig& config) {
    try {
      HttpServer server(config, no_endpoints(), metrics_);
    } catch (const Error& error) {
      return error.what();
    }
    return "listening";
  }
};

TEST(Probes, ReadyOnlyWhenARequestSentNowWouldBeTaken) {
  EXPECT_EQ(ready_response({.phase = Phase::kIdle}).status, 200);
  EXPECT_EQ(ready_response({.phase = Phase::kStepping}).status, 200);
  EXPECT_EQ(ready_response({.phase = Phase::kLoading}).status, 503);
  EXPECT_EQ(ready_response({.phase = Phase::kFailed}).status, 503);
  EXPECT_EQ(ready_response({.phase = Phase::kIdle, .draining = true}).status, 503);
  EXPECT_EQ(ready_response({.phase = Phase::kStepping, .queue_full = true}).status, 503);
}

TEST(Probes, AStalledStepIsUnhealthyAndALongIdleTimeIsNot) {
  EXPECT_EQ(health_response({.phase = Phase::kIdle, .age = 24h}, 30s).status, 200);
  EXPECT_EQ(health_response({.phase = Phase::kStepping, .age = 29s}, 30s).status, 200);
  EXPECT_EQ(health_response({.phase = Phase::kStepping, .age = 31s}, 30s).status, 503);
  EXPECT_EQ(health_response({.phase = Phase::kFailed}, 30s).status, 503);
}

TEST_F(HttpServerTest, AnswersProbesVersionModelsAndMetrics) {
  start();
  EXPECT_EQ(ask(get("/live")).status, 200);
  EXPECT_EQ(ask(get("/ready")).status, 200);
  EXPECT_EQ(ask(get("/health")).status, 200);
  EXPECT_TRUE(json::parse(ask(get("/version")).body).contains("version"));
  const json models = json::parse(ask(get("/v1/models?x=1")).body);
  EXPECT_EQ(models["object"], "list");
  EXPECT_EQ(models["data"][0], json({{"id", "demo"}, {"object", "model"}, {"created", 1'700'000'000}, {"owned_by", "skipper"},
                                     {"max_model_len", 4096}}));
  const RawResponse metrics = ask(get("/metrics"));
  EXPECT_THAT(metrics.headers.at("content-type"), HasSubstr("text/plain"));
  EXPECT_THAT(metrics.body, HasSubstr("# HELP vllm:num_requests_running"));
}

TEST_F(HttpServerTest, TellsWhichPortIsInUseAndWhatToDo) {
  start();
  FrontendConfig second = config_;
  second.port = server_->port();
  EXPECT_EQ(refusal(second), "port " + std::to_string(server_->port()) + " on 127.0.0.1 is in use; choose another with --port");
}

TEST_F(HttpServerTest, TellsWhichHostIsWrong) {
  FrontendConfig config = config_;
  config.host = "192.0.2.1";
  EXPECT_THAT(refusal(config), HasSubstr("192.0.2.1 is not of this host"));
  config.host = "no such host";
  EXPECT_THAT(refusal(config), HasSubstr("'no such host'"));
  config.host = "localhost";
  EXPECT_EQ(refusal(config), "listening");
}

TEST_F(HttpServerTest, TurnsConnectionsBeyondTheLimitAway) {
  config_.max_connections = 2;
  start();
  auto first = std::make_unique<RawClient>(server_->port());
  first->send(get("/live"));
  EXPECT_EQ(first->read_response().status, 200);
  RawClient second(server_->port());
  second.send(get("/live"));
  EXPECT_EQ(second.read_response().status, 200);
  RawClient third(server_->port());
  EXPECT_EQ(third.read_response().status, 503);
  EXPECT_TRUE(third.closed_within(4s));
  first.reset();
  EXPECT_TRUE(engine_.eventually([&] { return ask(get("/live")).status == 200; }));
}

TEST_F(HttpServerTest, StopsAtOnceWhenOnlyIdleConnectionsAreLeft) {
  config_.drain_timeout = 30s;
  start();
  RawClient idle(server_->port());
  RawClient used(server_->port());
  used.send(get("/live"));
  used.read_response();
  const auto begin = std::chrono::steady_clock::now();
  stop();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 2s);
}

TEST_F(HttpServerTest, LetsARunningStreamFinishAtStop) {
  config_.drain_timeout = 10s;
  engine_.step = 5ms;
  start();
  RawClient client(server_->port());
  client.send(chat("a stream of some length", {{"stream", true}}));
  ASSERT_TRUE(client.read_until("data: "));
  server_->stop();
  const RawResponse response = client.read_response();
  EXPECT_EQ(response.events().back(), "[DONE]");
  EXPECT_TRUE(client.closed_within(2s));
  EXPECT_THROW(RawClient another(server_->port()), std::runtime_error);
}

TEST_F(HttpServerTest, EndsAStreamThatOutlastsTheDrainWithAnError) {
  config_.drain_timeout = 50ms;
  engine_.step = 5ms;
  engine_.answer = [](const GenerationRequest&) { return std::string(4000, 'x'); };
  start();
  RawClient streamed(server_->port()), whole(server_->port());
  streamed.send(chat("a", {{"stream", true}}));
  whole.send(chat("a"));
  ASSERT_TRUE(streamed.read_until("data: "));
  ASSERT_TRUE(engine_.eventually([&] { return engine_.num_active() == 2; }));
  server_->stop();
  EXPECT_TRUE(json::parse(streamed.read_response().events().back()).contains("error"));
  EXPECT_EQ(whole.read_response().status, 503);
  stop();
  EXPECT_TRUE(engine_.eventually([&] { return engine_.num_active() == 0; }));
}

TEST_F(HttpServerTest, StopsBeforeItRuns) {
  HttpServer server(config_, no_endpoints(), metrics_);
  server.stop();
  server.run();
  EXPECT_NE(server.port(), 0);
}

}  // namespace
}  // namespace skipper
