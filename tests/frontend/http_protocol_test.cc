// What clients may do wrong, slowly or cleverly below the level of JSON.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "server_fixture.h"

namespace skipper {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using std::chrono_literals::operator""ms;
using std::chrono_literals::operator""s;

class HttpProtocol : public ServerTest {
 protected:
  int status_of(const std::string& bytes) {
    RawClient client(server_->port());
    client.send(bytes);
    return client.read_response().status;
  }
};

TEST_F(HttpProtocol, AnswersUnknownPathsAndWrongMethodsAsJson) {
  start();
  const RawResponse unknown = ask(get("/v1/../etc/passwd%00?x=1"));
  EXPECT_EQ(unknown.status, 404);
  EXPECT_EQ(error_of(unknown)["type"], "invalid_request_error");
  const RawResponse wrong = ask(get("/v1/chat/completions"));
  EXPECT_EQ(wrong.status, 405);
  EXPECT_EQ(wrong.headers.at("allow"), "POST");
  EXPECT_EQ(ask(post("/v1/models", "{}")).headers.at("allow"), "GET, HEAD");
  EXPECT_EQ(ask(get("/live", "BREW")).status, 405);
}

TEST_F(HttpProtocol, AnswersHeadWithTheHeaderOfGet) {
  start();
  RawClient client(server_->port());
  client.send(get("/v1/models"));
  const RawResponse whole = client.read_response();
  client.send(get("/v1/models", "HEAD") + get("/live"));
  const RawResponse head = client.read_response("HEAD");
  EXPECT_EQ(head.status, 200);
  EXPECT_EQ(head.headers.at("content-length"), whole.headers.at("content-length"));
  EXPECT_THAT(client.read_response().body, HasSubstr("live"));  // no body was in between
}

TEST_F(HttpProtocol, KeepsConnectionsAliveAndAnswersPipelinedRequestsInOrder) {
  start();
  RawClient client(server_->port());
  client.send(chat("first") + get("/version") + chat("second", {{"stream", true}}) + chat("third"));
  EXPECT_THAT(client.read_response().body, HasSubstr("first"));
  EXPECT_THAT(client.read_response().body, HasSubstr("version"));
  EXPECT_EQ(client.read_response().events().back(), "[DONE]");
  EXPECT_THAT(client.read_response().body, HasSubstr("third"));
}

TEST_F(HttpProtocol, ClosesWhenAskedToAndForHttp10) {
  start();
  RawClient polite(server_->port());
  polite.send("GET /live HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
  EXPECT_EQ(polite.read_response().headers.at("connection"), "close");
  EXPECT_TRUE(polite.closed_within(2s));
  RawClient old(server_->port());
  const std::string body = chat_body("abc", {{"stream", true}});
  old.send("POST /v1/chat/completions HTTP/1.0\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body);
  const RawResponse response = old.read_response();
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.headers.count("transfer-encoding"), 0u);
  EXPECT_EQ(response.events().back(), "[DONE]");
}

TEST_F(HttpProtocol, ReadsChunkedBodiesEvenByteByByte) {
  start();
  const std::string body = chat_body("hello");
  std::string chunks;
  for (const char c : body) chunks.append("1;name=value\r\n").append(1, c).append("\r\n");
  const std::string header = "POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n";
  const RawResponse response = ask(header + chunks + "0\r\n\r\n");
  ASSERT_EQ(response.status, 200) << response.body;
  EXPECT_THAT(response.body, HasSubstr("hello"));
}

TEST_F(HttpProtocol, SaysContinueToWhomExpectsIt) {
  start();
  RawClient client(server_->port());
  const std::string body = chat_body("hello");
  client.send("POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: " +
              std::to_string(body.size()) + "\r\n\r\n");
  EXPECT_EQ(client.read_response().status, 100);
  client.send(body);
  EXPECT_EQ(client.read_response().status, 200);
  EXPECT_EQ(status_of("POST / HTTP/1.1\r\nHost: t\r\nExpect: miracles\r\nContent-Length: 2\r\n\r\n{}"), 417);
}

TEST_F(HttpProtocol, RefusesABodyTooLargeBeforeReadingIt) {
  config_.max_body_bytes = 1024;
  start();
  RawClient client(server_->port());
  client.send("POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\nContent-Length: 10737418240\r\nExpect: 100-continue\r\n\r\n");
  const RawResponse refused = client.read_response();
  EXPECT_EQ(refused.status, 413);
  EXPECT_EQ(error_of(refused)["code"], "request_too_large");
  EXPECT_TRUE(client.closed_within(4s));
  EXPECT_EQ(status_of(post("/v1/chat/completions", std::string(1025, ' '))), 413);
  EXPECT_EQ(status_of(post("/v1/chat/completions", std::string(1024, ' '))), 400);
}

TEST_F(HttpProtocol, RefusesAChunkedBodyThatGrowsTooLarge) {
  config_.max_body_bytes = 1024;
  start();
  std::string request = "POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n";
  for (int i = 0; i < 40; ++i) request += "20\r\n" + std::string(32, ' ') + "\r\n";
  EXPECT_EQ(status_of(request), 413);
  EXPECT_EQ(status_of("POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffff\r\n"), 413);
}

TEST_F(HttpProtocol, LimitsBodiesOfAllRequestsTogether) {
  config_.max_body_bytes = 1024;
  config_.max_inflight_body_bytes = 1024;
  start();
  RawClient slow(server_->port());
  slow.send("POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\nContent-Length: 1000\r\n\r\n ");
  EXPECT_TRUE(engine_.eventually([&] { return status_of(chat("hello")) == 503; }));
  slow.reset();
  EXPECT_TRUE(engine_.eventually([&] { return status_of(chat("hello")) == 200; }));
}

TEST_F(HttpProtocol, RefusesALongTargetAndALargeHeader) {
  start();
  EXPECT_EQ(status_of(get(std::string("/").append(9000, 'a'))), 414);
  EXPECT_EQ(status_of(get(std::string("/").append(64 << 10, 'a'))), 414);
  EXPECT_EQ(status_of("GET /live HTTP/1.1\r\nHost: t\r\nX: " + std::string(1 << 20, 'b') + "\r\n\r\n"), 431);
  std::string many = "GET /live HTTP/1.1\r\nHost: t\r\n";
  for (int i = 0; i < 10'000; ++i) many += "X-" + std::to_string(i) + ": y\r\n";
  EXPECT_EQ(status_of(many + "\r\n"), 431);
  EXPECT_EQ(status_of("GET /live HTTP/1.1\r\nHost: t\r\nX: " + std::string(8 << 10, 'b') + "\r\n\r\n"), 200);
}

TEST_F(HttpProtocol, RefusesWhatCouldSmuggleARequest) {
  start();
  const std::string line = "POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\n";
  EXPECT_EQ(status_of(line + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400);
  EXPECT_EQ(status_of(line + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"), 400);
  EXPECT_EQ(status_of(line + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef"), 400);
  for (const char* length : {"-1", "+5", "99999999999999999999999", "5x", "0x5", "5,5", ""}) {
    EXPECT_EQ(status_of(line + "Content-Length: " + length + "\r\n\r\nabcde"), 400) << length;
  }
  EXPECT_EQ(status_of(line + "Transfer-Encoding: gzip\r\n\r\n"), 501);
  EXPECT_EQ(status_of(line + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"), 501);
  for (const char* size : {"-1", "zz", "ffffffffffffffffff", ""}) {
    const int status = status_of(line + "Transfer-Encoding: chunked\r\n\r\n" + size + "\r\n\r\n\r\n");
    EXPECT_TRUE(status == 400 || status == 413) << size << " " << status;
  }
}

TEST_F(HttpProtocol, RefusesMalformedRequests) {
  start();
  for (const std::string& bytes :
       {std::string("\r\n\r\nnonsense\r\n\r\n"), std::string("GET\r\n\r\n"), std::string("GET /live\r\n\r\n"),
        std::string("GET /live HTTP/3.0\r\nHost: t\r\n\r\n"), std::string("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 15),
        std::string("GET /\0live HTTP/1.1\r\nHost: t\r\n\r\n", 32),
        std::string("GET /live HTTP/1.1\r\n\r\n"), std::string("GET /live HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        std::string("GET /live HTTP/1.1\r\nHost : t\r\n\r\n"), std::string("GET /live HTTP/1.1\r\nHost: t\r\n: empty\r\n\r\n")}) {
    EXPECT_EQ(status_of(bytes), 400) << bytes;
  }
}

TEST_F(HttpProtocol, EndsSlowHeadersAndBodiesAndIdleConnections) {
  config_.header_timeout = 150ms;
  config_.body_timeout = 150ms;
  config_.idle_timeout = 150ms;
  start();
  RawClient header(server_->port());
  header.send("GET /live HTTP/1.1\r\nHo");
  EXPECT_EQ(header.read_response().status, 408);
  RawClient body(server_->port());
  body.send("POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\nContent-Length: 100\r\n\r\n{");
  EXPECT_EQ(body.read_response().status, 408);
  RawClient idle(server_->port());
  EXPECT_EQ(idle.read_response().status, 0);
}

TEST_F(HttpProtocol, DrippingAHeaderDoesNotStretchItsTime) {
  config_.header_timeout = 200ms;
  start();
  RawClient client(server_->port());
  const auto begin = std::chrono::steady_clock::now();
  client.send("GET /live HTTP/1.1\r\n");
  for (int i = 0; i < 100 && !client.closed_within(20ms); ++i) client.send("X: y\r\n");
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 1500ms);
}

TEST_F(HttpProtocol, SlowClientsDoNotDelayOthers) {
  start();
  std::vector<std::unique_ptr<RawClient>> slow;
  for (int i = 0; i < 100; ++i) {
    slow.push_back(std::make_unique<RawClient>(server_->port()));
    slow.back()->send("POST /v1/chat/completions HTTP/1.1\r\nHo");
  }
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(status_of(chat("hello")), 200);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 1s);
}

TEST_F(HttpProtocol, EchoesARequestIdMadeSafeOrMakesOne) {
  start();
  EXPECT_EQ(ask("GET /live HTTP/1.1\r\nHost: t\r\nX-Request-Id: abc-1.2_3\r\n\r\n").headers.at("x-request-id"), "abc-1.2_3");
  EXPECT_EQ(ask("GET /nowhere HTTP/1.1\r\nHost: t\r\nX-Request-Id: a\tb\"<c>\r\n\r\n").headers.at("x-request-id"), "abc");
  const std::string long_id(5000, 'x');
  const RawResponse cut = ask("GET /live HTTP/1.1\r\nHost: t\r\nX-Request-Id: " + long_id + "\r\n\r\n");
  EXPECT_EQ(cut.headers.at("x-request-id").size(), 128u);
  const std::string made = ask(get("/live")).headers.at("x-request-id");
  EXPECT_GT(made.size(), 16u);
  EXPECT_NE(made, ask(get("/live")).headers.at("x-request-id"));
}

TEST_F(HttpProtocol, SurvivesAStormOfDisconnects) {
  start();
  for (int i = 0; i < 200; ++i) {
    RawClient client(server_->port());
    client.send(std::string(chat("storm")).substr(0, static_cast<size_t>(i)));
    if (i % 2 == 0) client.reset();
  }
  EXPECT_EQ(status_of(chat("after")), 200);
}

}  // namespace
}  // namespace skipper
