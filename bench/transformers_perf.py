#!/usr/bin/env python3
"""Prefill and single-stream decode of a checkpoint in Hugging Face transformers, in tokens/s.

    python bench/transformers_perf.py --model bench-model --threads 2 --prefill 512 --steps 24 --repeat 3

BF16 on the CPU, sdpa attention, the loop over experts (`eager`), which is its fastest implementation there; one row of logits in
prefill. Prints one JSON line: {"prefill": {"512": [samples]}, "decode": {"1": [samples]}}. Needs torch and transformers.
"""

import json
import time

from command_line import OneLineParser, positive, sizes


def parse_arguments():
    parser = OneLineParser(__doc__)
    parser.add_argument("--model", required=True, help="checkpoint directory")
    parser.add_argument("--threads", type=positive, default=2)
    parser.add_argument("--prefill", type=sizes, default=[512], help="prompt lengths, as in 512,2048 (default 512)")
    parser.add_argument("--context", type=positive, default=16, help="tokens before decoding (default 16)")
    parser.add_argument("--steps", type=positive, default=24, help="decode steps of a run (default 24)")
    parser.add_argument("--repeat", type=positive, default=3, help="timed runs of each (default 3)")
    parser.add_argument("--experts", default="eager", help="experts_implementation of transformers (default eager)")
    return parser, parser.parse_args()


def time_prefill(torch, model, tokens):
    start = time.monotonic()
    logits = model(tokens, use_cache=True, logits_to_keep=1).logits
    seconds = time.monotonic() - start
    if not torch.isfinite(logits).all():
        raise SystemExit("transformers_perf.py: error: logits are not finite")
    return tokens.shape[1] / seconds


def time_decode(model, tokens, context):
    """Rate of the steps after a prompt of `context` tokens; the tokens are given, nothing is sampled."""
    cache = model(tokens[:, :context], use_cache=True, logits_to_keep=1).past_key_values
    start = time.monotonic()
    for position in range(context, tokens.shape[1]):
        model(tokens[:, position : position + 1], past_key_values=cache, use_cache=True)
    return (tokens.shape[1] - context) / (time.monotonic() - start)


def measure(arguments, torch, model):
    generator = torch.Generator().manual_seed(1)
    result = {"prefill": {str(size): [] for size in arguments.prefill}, "decode": {"1": []}}
    for run in range(arguments.repeat + 1):
        for size in arguments.prefill:
            rate = time_prefill(torch, model, torch.randint(model.config.vocab_size, (1, size), generator=generator))
            result["prefill"][str(size)] += [rate] if run > 0 else []  # the first run warms up
        tokens = torch.randint(model.config.vocab_size, (1, arguments.context + arguments.steps), generator=generator)
        rate = time_decode(model, tokens, arguments.context)
        result["decode"]["1"] += [rate] if run > 0 else []
    return result


def main():
    parser, arguments = parse_arguments()
    try:
        import torch
        import transformers
    except ImportError as error:
        parser.error(f"{error.name} is not installed in this Python")
    torch.set_num_threads(arguments.threads)
    transformers.logging.set_verbosity_error()
    model = transformers.AutoModelForCausalLM.from_pretrained(
        arguments.model, dtype=torch.bfloat16, attn_implementation="sdpa", experts_implementation=arguments.experts)
    with torch.inference_mode():
        print(json.dumps(measure(arguments, torch, model.eval())))


if __name__ == "__main__":
    main()
