#include "raw_client.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <stdexcept>
#include <utility>

namespace skipper {
namespace {

constexpr int kReadTimeoutMs = 10'000;

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
  return text;
}

}  // namespace

std::vector<std::string> RawResponse::events() const {
  std::vector<std::string> result;
  size_t begin = 0;
  while (begin < body.size()) {
    const size_t end = body.find("\n\n", begin);
    if (end == std::string::npos || body.compare(begin, 6, "data: ") != 0) {
      result.push_back("BROKEN FRAME: " + body.substr(begin));
      break;
    }
    result.push_back(body.substr(begin + 6, end - begin - 6));
    begin = end + 2;
  }
  return result;
}

RawClient::RawClient(uint16_t port) : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  // A small window, so that a client that does not read is felt by the server soon.
  const int window = 64 << 10;
  ::setsockopt(socket_, SOL_SOCKET, SO_RCVBUF, &window, sizeof(window));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::connect(socket_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) throw std::runtime_error("connect failed");
}

RawClient::~RawClient() { close(); }

bool RawClient::send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
  return true;
}

bool RawClient::receive() {
  pollfd poller{.fd = socket_, .events = POLLIN, .revents = 0};
  if (::poll(&poller, 1, kReadTimeoutMs) != 1) throw std::runtime_error("the server does not answer");
  char bytes[16384];
  const ssize_t received = ::recv(socket_, bytes, sizeof(bytes), 0);
  if (received <= 0) return false;
  buffer_.append(bytes, static_cast<size_t>(received));
  return true;
}

bool RawClient::read_until(std::string_view text) {
  while (buffer_.find(text) == std::string::npos) {
    if (!receive()) return false;
  }
  return true;
}

RawResponse RawClient::read_response(std::string_view method) {
  RawResponse response;
  if (!read_until("\r\n\r\n")) return response;
  const size_t header_end = buffer_.find("\r\n\r\n") + 4;
  const std::string header = buffer_.substr(0, header_end);
  buffer_.erase(0, header_end);
  response.status = std::stoi(header.substr(9, 3));
  for (size_t line = header.find("\r\n") + 2; line + 2 < header.size(); line = header.find("\r\n", line) + 2) {
    const size_t colon = header.find(':', line);
    response.headers[lower(header.substr(line, colon - line))] = header.substr(colon + 2, header.find("\r\n", line) - colon - 2);
  }
  if (method == "HEAD" || response.status == 100) return response;
  if (response.headers.count("content-length") != 0) {
    const size_t length = std::stoul(response.headers["content-length"]);
    while (buffer_.size() < length && receive()) {}
    response.body = buffer_.substr(0, length);
    buffer_.erase(0, length);
  } else if (response.headers.count("transfer-encoding") != 0) {
    while (read_until("\r\n")) {
      const size_t size = std::stoul(buffer_, nullptr, 16);
      const size_t begin = buffer_.find("\r\n") + 2;
      while (buffer_.size() < begin + size + 2 && receive()) {}
      response.body += buffer_.substr(begin, size);
      buffer_.erase(0, begin + size + 2);
      if (size == 0) break;
    }
  } else {
    while (receive()) {}
    response.body = std::exchange(buffer_, "");
  }
  return response;
}

bool RawClient::closed_within(std::chrono::milliseconds limit) {
  const auto deadline = std::chrono::steady_clock::now() + limit;
  while (std::chrono::steady_clock::now() < deadline) {
    pollfd poller{.fd = socket_, .events = POLLIN, .revents = 0};
    if (::poll(&poller, 1, 20) == 1 && !receive()) return true;
  }
  return false;
}

void RawClient::close() {
  if (socket_ >= 0) ::close(std::exchange(socket_, -1));
}

void RawClient::reset() {
  const linger hard{.l_onoff = 1, .l_linger = 0};
  ::setsockopt(socket_, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
  close();
}

void RawClient::shutdown_sending() { ::shutdown(socket_, SHUT_WR); }

std::string post(std::string_view path, std::string_view body, std::string_view extra_headers) {
  return "POST " + std::string(path) + " HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: " +
         std::to_string(body.size()) + "\r\n" + std::string(extra_headers) + "\r\n" + std::string(body);
}

std::string get(std::string_view path, std::string_view method) {
  return std::string(method) + " " + std::string(path) + " HTTP/1.1\r\nHost: test\r\n\r\n";
}

}  // namespace skipper
