"""bench/disk_ablation.py on a small random checkpoint that records its own routes: every row gives the same tokens, and the
figures can be; refusals of its program in one line."""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import skipper_process

BENCH = pathlib.Path(__file__).resolve().parent.parent.parent / "bench"
SHAPE = {"hidden": 32, "layers": 3, "experts": 8, "top-k": 2, "expert-width": 32, "heads": 4, "kv-heads": 2, "head-dim": 16,
         "vocab": 307, "max-positions": 512}
WARM_UP, TOKENS, ROUNDS = 4, 2, 2


def run_python(script, flags):
    return subprocess.run([sys.executable, str(BENCH / script), *flags], capture_output=True, text=True, timeout=240, check=False,
                          env={**os.environ, **skipper_process.MPI_ENVIRONMENT})


def make_model(folder):
    """A checkpoint with questions, as the demo has them."""
    model = os.path.join(folder, "model")
    shape = [part for name, size in SHAPE.items() for part in ("--" + name, str(size))]
    result = run_python("make_random_checkpoint.py", ["--out", model, *shape])
    if result.returncode != 0:
        sys.exit(f"make_random_checkpoint ended with status {result.returncode}:\n{result.stderr}")
    os.mkdir(os.path.join(model, "calibration"))
    with open(os.path.join(model, "calibration", "chat.jsonl"), "w", encoding="utf-8") as file:
        file.writelines(json.dumps({"question": f"Count to {index}."}) + "\n" for index in range(8))
    return model


def check_ablation(arguments, model, folder):
    report = os.path.join(folder, "ablation.json")
    result = run_python("disk_ablation.py", [
        "--perf", arguments.perf, "--binary", arguments.binary, "--model", model, "--demo", model, "--disk", folder,
        "--threads", "1", "--warm_up", str(WARM_UP), "--tokens", str(TOKENS), "--rounds", str(ROUNDS), "--prompt", "24",
        "--json", report])
    print(result.stdout, end="")
    if result.returncode != 0:
        return [f"disk_ablation ended with status {result.returncode}:\n{result.stderr}"]
    with open(report, encoding="utf-8") as file:
        found = json.load(file)
    failures = []
    rows = {(row["label"], row["format"]): row for row in found["rows"]}
    needs_of_token = SHAPE["layers"] * SHAPE["top-k"]
    decoded = WARM_UP + ROUNDS * TOKENS
    if found["facts"]["decoded"] != decoded or len(rows) != len(found["rows"]) or len(rows) < 10:
        failures.append(f"other rows than expected: {list(rows)}")
    demand = rows[("on demand", "bf16")]
    # Four experts in memory are those of this layer and of the one before: nothing is left of the token before.
    if demand["hit_rate"] != 0 or demand["bytes"] < decoded * needs_of_token * 3 * 2 * 32 * 32:
        failures.append(f"on demand: {demand}")
    for label in ("+ cache", "cache, Belady, no foresight", "cache, oracle"):
        # The cache holds all experts: each is read once at most.
        row = rows[(label, "int4a-g32")]
        if row["bytes"] > SHAPE["layers"] * SHAPE["experts"] * found["facts"]["expert_bytes"] or row["hit_rate"] < 0.3:
            failures.append(f"{label}: {row}")
    if rows[("cache, oracle", "int4a-g32")]["wasted"] != 0:
        failures.append("an oracle reads what nobody needs")
    if not all(row["seconds_per_token"] > 0 for row in found["rows"]) or found["facts"]["disk_rate"] <= 0:
        failures.append("figures that cannot be")
    streamed = rows[("+ low bit", "int4a-g32")]["prefill"]
    if not streamed or not all(run["seconds"] > 0 for run in streamed):
        failures.append(f"prefill: {streamed}")
    return failures


def check_refusals(arguments, model, folder):
    """In one line, with the status of wrong use or of an error."""
    audit = os.path.join(folder, "empty.jsonl")
    with open(audit, "w", encoding="utf-8") as file:
        file.write("no audit\n")
    cases = [
        (["--routes", audit], 2, "--model is missing"),
        (["--model", model], 2, "--routes is missing"),
        (["--model", model, "--routes", audit, "--tokens", "0"], 2, "--tokens: 0 is less than 1"),
        (["--model", model, "--routes", audit, "--experts", "int5"], 2, "int5"),
        (["--model", model, "--routes", audit, "--disk", folder, "--eviction", "fifo"], 1, "'fifo' is not supported"),
        (["--model", model, "--routes", audit], 1, "is not the start of an audit file"),
    ]
    failures = []
    for flags, status, expected in cases:
        result = subprocess.run([arguments.perf, *flags], capture_output=True, text=True, timeout=60, check=False, input="")
        if result.returncode != status or expected not in result.stderr or result.stderr.count("\n") != 1:
            failures.append(f"{flags}: status {result.returncode}, {result.stderr!r}")
    return failures


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", required=True)
    parser.add_argument("--model")
    parser.add_argument("--perf", required=True)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = make_model(folder)
        failures = check_refusals(arguments, model, folder) + check_ablation(arguments, model, folder)
    sys.exit("\n".join(failures) if failures else 0)


if __name__ == "__main__":
    main()
