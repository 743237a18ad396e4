// A question of a data set as the model is asked it.
#pragma once

#include "evaluation/eval_data.h"
#include "processor/multimodal_processor.h"

namespace skipper {

// Through the chat template, picture first. Throws InvalidFile naming the picture or the question that cannot be taken.
ProcessedPrompt prompt_of(const EvalQuestion& question, const MultimodalProcessor& processor);

}  // namespace skipper
