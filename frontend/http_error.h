// From an error to the status and JSON body of OpenAI's API.
#pragma once

#include <exception>
#include <string>

#include "frontend/http_message.h"

namespace skipper {

struct HttpError {
  int status = 500;
  std::string type;     // "invalid_request_error", "rate_limit_error", "server_error"
  std::string message;  // one line of ours
  std::string param;    // field path; empty becomes null
  std::string code;     // OpenAI's code; empty becomes null
  std::string allow;    // 405: the methods that work
};

// A refusal that the type of a thrown error cannot express, by its status.
HttpError http_error(int status, std::string message);

// InvalidRequest 400 (404 with code model_not_found), ResourceExhausted 429, Cancelled and CommError 503, anything else 500
// with a text that tells nothing of our insides (those are logged).
HttpError http_error_from(std::exception_ptr error);

// {"error":{"message","type","param","code"}}
std::string error_json(const HttpError& error);

HttpResponse error_response(const HttpError& error);

}  // namespace skipper
