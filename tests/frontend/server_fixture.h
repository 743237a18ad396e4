// A real server on a free port in front of the fake engine.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>

#include "fake_engine.h"
#include "frontend/http_server.h"
#include "raw_client.h"

namespace skipper {

class ServerTest : public ::testing::Test {
 protected:
  ServerTest() {
    config_.port = 0;
    config_.drain_timeout = std::chrono::milliseconds(300);
  }

  ~ServerTest() override { stop(); }

  // Tests change config_, model_, processor_ and engine_ before.
  void start() {
    auto context = std::make_shared<const ServingContext>(ServingContext{.config = config_,
                                                                         .model = model_,
                                                                         .processor = processor_,
                                                                         .engine = engine_.hooks(),
                                                                         .metrics = metrics_});
    server_ = std::make_unique<HttpServer>(config_, make_endpoints(context), metrics_);
    thread_ = std::thread([this] { server_->run(); });
  }

  void stop() {
    if (!thread_.joinable()) return;
    server_->stop();
    thread_.join();
  }

  RawResponse ask(const std::string& request, std::string_view method = "GET") {
    RawClient client(server_->port());
    client.send(request);
    return client.read_response(method);
  }

  static std::string chat_body(const std::string& text, nlohmann::json fields = nlohmann::json::object()) {
    fields["model"] = "demo";
    fields["messages"] = {{{"role", "user"}, {"content", text}}};
    return fields.dump();
  }

  static std::string chat(const std::string& text, nlohmann::json fields = nlohmann::json::object()) {
    return post("/v1/chat/completions", chat_body(text, std::move(fields)));
  }

  static nlohmann::json error_of(const RawResponse& response) { return nlohmann::json::parse(response.body).at("error"); }

  FrontendConfig config_;
  ServedModel model_ = fake_model();
  ChatProcessor processor_ = fake_processor();
  MetricsRegistry metrics_{"demo", 1};
  FakeEngine engine_;
  std::unique_ptr<HttpServer> server_;
  std::thread thread_;
};

}  // namespace skipper
