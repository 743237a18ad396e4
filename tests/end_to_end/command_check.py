"""What tests of commands that end by themselves share: their main function, and how a refusal looks."""

import argparse
import json
import os
import re
import sys
import tempfile

import skipper_process

EXIT_ERROR = 1
EXIT_USAGE = 2


def run_checks(check):
    """Ends the process; check(arguments, folder) returns a list of what is wrong, with a folder to write to."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", required=True)
    parser.add_argument("--model", required=True)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        failures = check(arguments, folder)
    sys.exit("\n".join(failures) if failures else 0)


def read_json(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def write_json(path, content):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(content, file)
    return path


def short_text(model, num_bytes, folder):
    """A new folder with the beginning of a held-out text."""
    os.mkdir(folder)
    with open(os.path.join(model, "eval", "heldout_docs.txt"), encoding="utf-8") as file:
        text = file.read(num_bytes)
    with open(os.path.join(folder, "text.txt"), "w", encoding="utf-8") as file:
        file.write(text)
    return folder


def replay_audit(binary, audit):
    """What replay prints for the file of one rank, which has decisions, and what is wrong with them."""
    result = skipper_process.run(binary, ["replay", "--audit", audit], timeout=60)
    print(result.stdout, end="")
    agrees = result.returncode == 0 and re.match(r"decisions [1-9]\d*, .*different 0\n", result.stdout)
    return result.stdout, [] if agrees else [f"replay of {audit}: {result.stdout}{result.stderr}"]


def error_line(result):
    """The one line that a failed command prints, or what is wrong with its errors."""
    lines = [line for line in result.stderr.splitlines() if line.startswith("skipper: error:")]
    return lines[0] if len(lines) == 1 else f"{len(lines)} error lines: {result.stderr}"


def check_refusal(name, result, status, expected, out=None):
    """A refusal has this status and this text in its one line, and makes no file."""
    line = error_line(result)
    print(f"{name}: {line}")
    failures = []
    if result.returncode != status or expected not in line:
        failures.append(f"{name}: status {result.returncode}, {line}, expected {status} and {expected!r}")
    if out and os.path.exists(out):
        failures.append(f"{name}: something was made")
    return failures
