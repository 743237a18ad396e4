// Everything the HTTP frontend limits or waits for.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>

namespace skipper {

struct FrontendConfig {
  std::string host = "127.0.0.1";
  int64_t port = 8000;  // 0: a free one
  std::string port_flag = "--port";  // that chooses it, for messages; not of the file

  int64_t max_connections = 1024;
  int64_t processor_threads = 2;  // JSON, chat template, tokenizer, image decoding

  // One request.
  size_t max_target_bytes = 8 << 10;          // else 414
  size_t max_header_bytes = 16 << 10;         // request line and fields, else 431
  size_t max_body_bytes = size_t{32} << 20;   // else 413
  size_t max_inflight_body_bytes = size_t{256} << 20;  // of all requests being read or processed, else 503
  size_t max_json_values = 262'144;           // of one body
  size_t max_json_depth = 32;
  size_t max_messages = 2048;
  size_t max_images = 16;
  size_t max_image_bytes = size_t{20} << 20;  // after base64
  size_t max_choices = 16;
  size_t max_stop_strings = 16;
  size_t max_stop_bytes = 1024;               // of one stop string
  size_t max_stop_token_ids = 64;

  std::chrono::milliseconds header_timeout{10'000};  // first byte to end of header
  std::chrono::milliseconds idle_timeout{75'000};    // between requests of a connection
  std::chrono::milliseconds body_timeout{30'000};    // between two reads of a body
  std::chrono::milliseconds write_timeout{30'000};   // until a reader takes what is written
  std::chrono::milliseconds drain_timeout{30'000};   // running responses at stop
  std::chrono::milliseconds stall_timeout{30'000};   // a step longer than this is unhealthy

  // Throws InvalidFile naming the key ("frontend.port") whose value is out of range.
  void validate() const;
};

}  // namespace skipper
