"""`skipper calibrate` on the demo model: on 1 and 2 ranks, killed and gone on, on a layer without effect, and what it refuses."""

import argparse
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time

import skipper_process

EXIT_ERROR = 1
EXIT_USAGE = 2
NUM_LAYERS = 6
DEAD_LAYER = 2
SMALL = ["--limit", "15", "--text_windows", "0"]


def flags(arguments, out, *more, model=None, data=None):
    return ["calibrate", "--model", model or arguments.model, "--data",
            data or os.path.join(arguments.model, "calibration"), "--out", out, *SMALL, *more]


def calibrate(arguments, out, *more, ranks=0, **paths):
    return skipper_process.run(arguments.binary, flags(arguments, out, *more, **paths), ranks=ranks, timeout=300)


def read(path):
    with open(path, "rb") as file:
        return file.read()


def calibrated(arguments, out, *more, **options):
    """The bytes of the file that was made."""
    result = calibrate(arguments, out, *more, **options)
    if result.returncode != 0:
        sys.exit(f"calibrate ended with status {result.returncode}:\n{result.stderr}")
    if os.path.exists(out + ".partial"):
        sys.exit("calibrate left its record of unfinished work behind")
    return read(out)


def check_numbers(found):
    failures = []
    for name in ("text", "vision"):
        alpha, losses = found["alpha"][name], found["bypass_kl"][name]
        if len(alpha) != NUM_LAYERS or min(alpha) < 0 or abs(sum(alpha) - 1) > 1e-5:
            failures.append(f"alpha of {name} is {alpha}")
        powers = [(loss / sum(losses)) ** found["exponent"][name] for loss in losses]
        if any(abs(power / sum(powers) - value) > 1e-6 for power, value in zip(powers, alpha)):
            failures.append(f"alpha of {name} is {alpha}, not the normalised {found['exponent'][name]}th power of {losses}")
    if found["bypass_kl"]["vision"][-1] != 0 or min(found["bypass_kl"]["vision"][:-1]) <= 0:
        failures.append(f"KL of vision is {found['bypass_kl']['vision']}; only its last layer is read by nobody")
    used = sum(map(sum, found["use"]["prompt"]["text"]))
    if used == 0 or used != sum(map(sum, found["scores"]["text"])):
        failures.append(f"{used} text pairs by expert, {sum(map(sum, found['scores']['text']))} by score")
    return failures


def check_ranks(arguments, folder):
    """Two ranks differ from one by the rounding of partial sums; two runs alike not at all."""
    one = calibrated(arguments, os.path.join(folder, "one.json"))
    again = calibrated(arguments, os.path.join(folder, "again.json"), "--threads", "1")
    two = json.loads(calibrated(arguments, os.path.join(folder, "two.json"), ranks=2))
    failures = check_numbers(json.loads(one)) + check_numbers(two)
    if one != again:
        failures.append("the same calibration with one thread gives another file")
    for name in ("text", "vision"):
        for left, right in zip(json.loads(one)["bypass_kl"][name], two["bypass_kl"][name]):
            if abs(left - right) > 0.05 * max(left, right) + 1e-5:
                failures.append(f"KL of {name}: {left} on one rank, {right} on two")
    return failures, one


def check_resume(arguments, folder, expected):
    """Killed after its first measurements."""
    out = os.path.join(folder, "killed.json")
    partial = out + ".partial"
    process = subprocess.Popen([arguments.binary, *flags(arguments, out)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if os.path.exists(partial) and read(partial).count(b"\n") > 4:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    if os.path.exists(out) or not os.path.exists(partial):
        return ["calibrate was not caught at work; it left its result, or no record"]
    with open(partial, "ab") as file:
        file.write(b'{"point": "text wi')  # as if the kill had cut a line short
    refusal = error_line(calibrate(arguments, out, "--bypass", "identity"))
    failures = [] if "begun with 'bypass zero" in refusal and "remove it" in refusal else [f"other settings: {refusal}"]
    result = calibrate(arguments, out)
    if "going on with" not in result.stderr:
        failures.append(f"does not say that it goes on: {result.stderr}")
    if read(out) != expected:
        failures.append("killed and gone on, calibrate makes another file")
    return failures


def copy_with_dead_layer(arguments, folder):
    """The model with zeros for all down projections of one layer."""
    model = os.path.join(folder, "dead_layer")
    shutil.copytree(arguments.model, model, ignore=shutil.ignore_patterns("eval", "calibration"))
    tensor = f"model.language_model.layers.{DEAD_LAYER}.mlp.experts.down_proj"
    with open(os.path.join(model, "model.safetensors.index.json"), encoding="utf-8") as file:
        shard = os.path.join(model, json.load(file)["weight_map"][tensor])
    with open(shard, "r+b") as file:
        (header_bytes,) = struct.unpack("<Q", file.read(8))
        begin, end = json.loads(file.read(header_bytes))[tensor]["data_offsets"]
        file.seek(8 + header_bytes + begin)
        file.write(bytes(end - begin))
    return model


def check_dead_layer(arguments, folder):
    model = copy_with_dead_layer(arguments, folder)
    data = os.path.join(arguments.model, "calibration")
    found = json.loads(calibrated(arguments, os.path.join(folder, "dead.json"), model=model, data=data))
    losses = [found["bypass_kl"][name][DEAD_LAYER] for name in ("text", "vision")]
    if losses != [0, 0] or min(found["bypass_kl"]["text"][:DEAD_LAYER]) <= 0:
        return [f"a layer without effect has KL {losses}: {found['bypass_kl']}"]
    out = os.path.join(folder, "identity.json")
    identity = json.loads(calibrated(arguments, out, "--bypass", "identity", model=model, data=data))
    if identity["convention"]["bypass"] != "identity" or identity["bypass_kl"]["text"][DEAD_LAYER] <= 0:
        return [f"--bypass identity adds nothing where experts return nothing: {identity['bypass_kl']}"]
    return []


def error_line(result):
    lines = [line for line in result.stderr.splitlines() if line.startswith("skipper: error:")]
    return lines[0] if len(lines) == 1 else f"{len(lines)} error lines: {result.stderr}"


def check_refusals(arguments, folder):
    empty = os.path.join(folder, "empty")
    texts = os.path.join(folder, "texts")
    for name in (empty, texts):
        os.mkdir(name)
    with open(os.path.join(texts, "chat.jsonl"), "w", encoding="utf-8") as file:
        for answer in range(10):
            file.write(json.dumps({"task": "t", "question": "What?", "answer": str(answer)}) + "\n")
    out = os.path.join(folder, "refused.json")
    failures = []
    for name, more, data, ranks, status, expected in (
        ("no data", [], empty, 0, EXIT_ERROR, "empty"),
        ("missing data", [], os.path.join(folder, "gone"), 0, EXIT_ERROR, "gone: does not exist; give a file"),
        ("no picture", [], texts, 2, EXIT_ERROR, "no question has a picture"),
        ("too few samples", ["--limit", "3"], None, 0, EXIT_ERROR, "3 samples are too few to hold one of each 5 out"),
        ("little memory", ["--reference_memory", "0"], None, 0, EXIT_ERROR, "raise it, start more ranks"),
        ("unknown bypass", ["--bypass", "nothing"], None, 0, EXIT_USAGE, "flag --bypass: 'nothing' is neither zero nor identity"),
        ("foreign flag", ["--port", "1"], None, 0, EXIT_USAGE, "flag --port belongs to 'skipper serve'"),
    ):
        result = calibrate(arguments, out, *more, data=data, ranks=ranks)
        line = error_line(result)
        print(f"{name}: {line}")
        if result.returncode != status or expected not in line:
            failures.append(f"{name}: status {result.returncode}, {line}, expected {status} and {expected!r}")
        if os.path.exists(out):
            failures.append(f"{name}: something was made")
    unwritable = calibrate(arguments, os.path.join(folder, "gone", "out.json"))
    if unwritable.returncode != EXIT_ERROR or "gone" not in error_line(unwritable):
        failures.append(f"folder that is missing: {error_line(unwritable)}")
    return failures


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", required=True)
    parser.add_argument("--model", required=True)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        failures, one = check_ranks(arguments, folder)
        failures += check_resume(arguments, folder, one)
        failures += check_dead_layer(arguments, folder)
        failures += check_refusals(arguments, folder)
    sys.exit("\n".join(failures) if failures else 0)


if __name__ == "__main__":
    main()
