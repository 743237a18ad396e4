// Reads the added tokens of a tokenizer and their flags, which two files may state.
#pragma once

#include <filesystem>

#include "base/json_fields.h"
#include "processor/tokenizer_definition.h"

namespace skipper {

// Fills `definition.added_tokens` and their `token_bytes`. `tokenizer` is tokenizer.json; `config_path` may be absent. As in
// transformers, entries of the config's added_tokens_decoder overrule flags and may add tokens, and a token named there
// as eos_token, additional_special_tokens and so on is special. Throws InvalidFile.
void read_added_tokens(const JsonFields& tokenizer, const std::filesystem::path& config_path,
                       TokenizerDefinition& definition);

}  // namespace skipper
