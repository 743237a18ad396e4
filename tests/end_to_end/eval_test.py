"""`skipper eval` against the committed reference of transformers in FP32, on one or more ranks.

Perplexity within 1 %, every task within one question; a repeated run gives the same JSON, byte for byte.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile

import skipper_process


def evaluate(arguments, data, out):
    result = skipper_process.run(
        arguments.binary,
        ["eval", "--model", arguments.model, "--data", data, "--json", out],
        ranks=arguments.ranks,
        timeout=1800,
    )
    if result.returncode != 0:
        sys.exit(f"eval ended with status {result.returncode}:\n{result.stderr}")
    with open(out, encoding="utf-8") as file:
        return file.read()


def check_against_reference(found, reference):
    failures = []
    for name, expected in reference["perplexity"].items():
        got = found["perplexity"][name]
        ratio = got["perplexity"] / expected["perplexity"]
        print(f"{name}: perplexity {got['perplexity']:.4f}, reference {expected['perplexity']:.4f}, ratio {ratio:.5f}")
        if abs(ratio - 1) > 0.01 or got["tokens"] != expected["tokens"]:
            failures.append(f"{name}: {got} against {expected}")
    for kind in ("vqa", "chat"):
        for task, expected in reference[kind].items():
            got = found[kind][task]
            print(f"{kind} {task}: {got['right']} of {got['total']}, reference {expected['right']}")
            if abs(got["right"] - expected["right"]) > 1 or got["total"] != expected["total"]:
                failures.append(f"{kind} {task}: {got} against {expected}")
    return failures


def small_copy(data, folder):
    """A part of the data that takes seconds, for the repeated run."""
    os.mkdir(os.path.join(folder, "images"))
    shutil.copy(os.path.join(data, "heldout_docs.txt"), folder)
    for name in ("vqa.jsonl", "chat.jsonl"):
        with open(os.path.join(data, name), encoding="utf-8") as file:
            lines = file.readlines()[:40]
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            file.writelines(lines)
        for line in lines:
            image = json.loads(line).get("image")
            if image:
                shutil.copy(os.path.join(data, image), os.path.join(folder, image))
    return folder


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--ranks", type=int, required=True)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = json.loads(evaluate(arguments, arguments.data, os.path.join(folder, "full.json")))
        with open(os.path.join(arguments.data, "reference.json"), encoding="utf-8") as file:
            failures = check_against_reference(found, json.load(file))
        data = small_copy(arguments.data, tempfile.mkdtemp(dir=folder))
        runs = [evaluate(arguments, data, os.path.join(folder, f"run{i}.json")) for i in range(2)]
    if runs[0] != runs[1]:
        failures.append("two runs of the same evaluation differ")
    sys.exit("\n".join(failures) if failures else 0)


if __name__ == "__main__":
    main()
