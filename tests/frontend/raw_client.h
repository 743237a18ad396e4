// A client that sends exactly the bytes a test gives it, over a plain socket.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace skipper {

struct RawResponse {
  int status = 0;  // 0: the connection ended before a response
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;                            // chunks joined

  // The documents of the server-sent events, "[DONE]" included.
  std::vector<std::string> events() const;
};

class RawClient {
 public:
  explicit RawClient(uint16_t port);
  ~RawClient();
  RawClient(const RawClient&) = delete;
  RawClient& operator=(const RawClient&) = delete;

  // False when the server has closed.
  bool send(std::string_view bytes);
  // Reads one response; `method` HEAD has no body.
  RawResponse read_response(std::string_view method = "GET");
  // Reads until `text` has come (which stays to be read) or the connection ends.
  bool read_until(std::string_view text);
  // True when the server ends the connection within the time, whatever it still sends.
  bool closed_within(std::chrono::milliseconds limit);

  void close();            // FIN
  void reset();            // RST
  void shutdown_sending();

 private:
  bool receive();

  int socket_ = -1;
  std::string buffer_;
};

// "POST ... \r\n\r\n" + body.
std::string post(std::string_view path, std::string_view body, std::string_view extra_headers = "");
std::string get(std::string_view path, std::string_view method = "GET");

}  // namespace skipper
