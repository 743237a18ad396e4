#!/usr/bin/env python3
"""Predicted against measured speed of one stream: what `skipper plan --machine` says, and what a server then does.

    bench/decode_prediction.py --binary skipper --model bench-model --budgets 1.3G 1.9G 1.1G,1.0G --json decode.json

For each of --budgets (one server, on as many ranks as it has sizes): `skipper machine` with as many ranks, a plan by its rates,
`serve --plan`, and answers of 64 tokens, one after the other. Tokens/s count from the first token of an answer; the best and the
median answer are shown, since other programs of a machine only take time. Standard library only.
"""

import json
import os
import statistics
import sys
import tempfile
import urllib.parse

import memory_budget
import serving_load
from command_line import OneLineParser, positive
from memory_budget import skipper_process

OUTPUT_TOKENS = 64


def run_command(arguments, flags, ranks):
    result = skipper_process.run(arguments.binary, flags, ranks=ranks)
    if result.returncode != 0:
        raise RuntimeError(result.stderr.strip())


def plan(arguments, budgets, config, folder):
    """The path of a plan by rates that are measured now."""
    ranks = len(budgets)
    machine, path = os.path.join(folder, "machine.json"), os.path.join(folder, "plan.json")
    run_command(arguments, ["machine", "--out", machine, "--device", "cpu"], ranks if ranks > 1 else 0)
    run_command(arguments, ["plan", "--model", arguments.model, "--memory", ",".join(map(str, budgets)), "--ranks", str(ranks),
                            "--machine", machine, "--config", config, "--device", "cpu", "--out", path], 0)
    return path


def measure(arguments, path, config, ranks):
    """Tokens a second of each answer."""
    flags = ["--model", arguments.model, "--served_model_name", "model", "--device", "cpu", "--plan", path, "--config", config]
    rates = []
    with skipper_process.Server(arguments.binary, flags, ranks=ranks if ranks > 1 else 0) as server:
        url = urllib.parse.urlparse(server.url)
        for index in range(arguments.answers + 1):
            _, first, total, tokens = serving_load.ask((url.hostname, url.port), "model", f"Count to {index}.", OUTPUT_TOKENS)
            rates.append((tokens - 1) / (total - first))
    return rates[1:]


def run(arguments):
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        config = memory_budget.write_config(folder)
        for sizes in arguments.budgets:
            budgets = [memory_budget.num_bytes(size) for size in sizes.split(",")]
            path = plan(arguments, budgets, config, folder)
            with open(path, encoding="utf-8") as file:
                predicted = json.load(file)["predicted"]
            rates = measure(arguments, path, config, len(budgets))
            row = {"budgets": sizes, "expert_bits": predicted["expert_bits"], "predicted": 1 / predicted["seconds_per_token"],
                   "best": max(rates), "median": statistics.median(rates)}
            rows.append(row)
            print(f"{sizes:>12} {row['expert_bits']:6.2f} bits: predicted {row['predicted']:6.1f} tokens/s, measured best "
                  f"{row['best']:6.1f} ({100 * (row['predicted'] / row['best'] - 1):+.0f} %), median {row['median']:6.1f} "
                  f"({100 * (row['predicted'] / row['median'] - 1):+.0f} %)", flush=True)
    return rows


def main():
    parser = OneLineParser(__doc__)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--budgets", nargs="+", required=True, metavar="SIZE[,SIZE ...]")
    parser.add_argument("--answers", type=positive, default=8)
    parser.add_argument("--json", default="")
    arguments = parser.parse_args()
    rows = run(arguments)
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    sys.exit(main())
