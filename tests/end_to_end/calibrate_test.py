"""`skipper calibrate` on the demo model: ranks, killed and gone on, traces, a dead layer, another order, and what it refuses."""

import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys

import skipper_process
from command_check import EXIT_ERROR, EXIT_USAGE, check_refusal, error_line, run_checks

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
    total = lambda layers: sum(map(sum, layers))
    prompt, generated = found["use"]["prompt"], found["use"]["generated"]
    if total(prompt["text"]) == 0 or total(prompt["text"]) + total(generated["text"]) != total(found["scores"]["text"]):
        failures.append(f"{total(prompt['text'])} + {total(generated['text'])} text pairs by expert, "
                        f"{total(found['scores']['text'])} by score")
    if total(generated["text"]) == 0 or total(generated["text"]) != total(found["scores"]["generated_text"]):
        failures.append(f"{total(generated['text'])} pairs of answers by expert, "
                        f"{total(found['scores']['generated_text'])} by score")
    if total(generated["vision"]) != 0 or total(prompt["vision"]) == 0:
        failures.append("answers have no vision tokens, questions have")
    return failures


def check_ranks(arguments, folder):
    """The same file, bit by bit, over any number of ranks and threads and with steps of any size."""
    one = calibrated(arguments, os.path.join(folder, "one.json"))
    failures = check_numbers(json.loads(one))
    config = os.path.join(folder, "small_steps.json")
    with open(config, "w", encoding="utf-8") as file:
        json.dump({"engine": {"max_tokens_per_step": 193, "max_sequences_per_rank": 3}}, file)
    for name, ranks, more in (("one thread", 0, ["--threads", "1"]), ("two ranks", 2, []), ("three ranks", 3, []),
                              ("two ranks, small steps", 2, ["--config", config])):
        if calibrated(arguments, os.path.join(folder, "other.json"), *more, ranks=ranks) != one:
            failures.append(f"{name}: another file than on one rank")
    return failures, one


def kill_at_work(arguments, out):
    """Killed after its first measurements; False when it was not caught."""
    partial = out + ".partial"
    with subprocess.Popen([arguments.binary, *flags(arguments, out)], stderr=subprocess.DEVNULL,
                          stdout=subprocess.DEVNULL) as process:
        measured = lambda: os.path.exists(partial) and read(partial).count(b"\n") > 4
        skipper_process.wait_until(lambda: measured() or process.poll() is not None, timeout=120)
        process.send_signal(signal.SIGKILL)
    return os.path.exists(partial) and not os.path.exists(out)


def check_resume(arguments, folder, expected):
    """Begun on one rank, killed, and gone on with one and with two."""
    out = os.path.join(folder, "killed.json")
    partial = out + ".partial"
    if not kill_at_work(arguments, out):
        return ["calibrate was not caught at work; it left its result, or no record"]
    with open(partial, "ab") as file:
        file.write(b'{"point": "text wi')  # as if the kill had cut a line short
    refusal = error_line(calibrate(arguments, out, "--bypass", "identity"))
    failures = [] if "begun with 'bypass zero" in refusal and "remove it" in refusal else [f"other settings: {refusal}"]
    for ranks in (0, 2):
        copy = os.path.join(folder, f"resumed_on_{ranks}.json")
        shutil.copy(partial, copy + ".partial")
        result = calibrate(arguments, copy, ranks=ranks)
        if "going on with" not in result.stderr:
            failures.append(f"does not say that it goes on: {result.stderr}")
        if read(copy) != expected:
            failures.append(f"killed and gone on with {ranks or 1} ranks, calibrate makes another file")
    return failures


def check_traces(arguments, folder, expected):
    """The routes of the unskipped pass: replay agrees with them, and they are those that the file counts."""
    audit, out = os.path.join(folder, "routes.jsonl"), os.path.join(folder, "traced.json")
    failures = []
    if calibrated(arguments, out, "--audit_file", audit, ranks=2) != expected:
        failures.append("writing traces changes the calibration")
    pairs = 0
    for rank in (0, 1):
        result = skipper_process.run(arguments.binary, ["replay", "--audit", f"{audit}.rank{rank}"], timeout=60)
        counts = re.match(r"decisions (\d+), pairs (\d+), skipped 0 .*different 0\n", result.stdout)
        if result.returncode != 0 or not counts:
            return failures + [f"replay of the traces of rank {rank}: {result.stdout}{result.stderr}"]
        pairs += int(counts[2])
    use = json.loads(expected)["use"]
    counted = sum(sum(map(sum, layers)) for phase in use.values() for layers in phase.values())
    if pairs != counted:
        failures.append(f"{pairs} pairs in the traces, {counted} in the file")
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


def write_lines(path, lines):
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


def check_order(arguments, folder):
    """The same samples in another order and twice give the same means, up to the order in which they are added."""
    source = os.path.join(arguments.model, "calibration")
    with open(os.path.join(source, "vqa.jsonl"), encoding="utf-8") as file:
        questions = [json.loads(line) for line in file][:10]
    for question in questions:
        question["image"] = os.path.join(source, question["image"])
    # Every fifth sample is held out: fives trade places whole, so that the same ones are.
    other = questions[5:] + questions[:5]
    found = []
    for name, samples in (("ordered", questions), ("turned", other + questions)):
        data = os.path.join(folder, name + ".jsonl")
        write_lines(data, samples)
        found.append(json.loads(calibrated(arguments, os.path.join(folder, name + ".json"), "--limit", "40", data=data)))
    failures = []
    for name in ("text", "vision"):
        for before, after in zip(*(one["bypass_kl"][name] for one in found)):
            if abs(after - before) > 1e-9 * before:
                failures.append(f"KL of a layer for {name} is {before}, and {after} of the same samples turned round and twice")
    counts = [one["origin"]["num_samples"] for one in found]
    if counts[1] != 2 * counts[0] or found[0]["exponent"] != found[1]["exponent"]:
        failures.append(f"{counts} samples, exponents {[one['exponent'] for one in found]}")
    return failures


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
        failures += check_refusal(name, result, status, expected, out)
    unwritable = calibrate(arguments, os.path.join(folder, "gone", "out.json"))
    if unwritable.returncode != EXIT_ERROR or "gone" not in error_line(unwritable):
        failures.append(f"folder that is missing: {error_line(unwritable)}")
    return failures


def check(arguments, folder):
    failures, one = check_ranks(arguments, folder)
    failures += check_resume(arguments, folder, one)
    failures += check_traces(arguments, folder, one)
    failures += check_dead_layer(arguments, folder)
    failures += check_order(arguments, folder)
    return failures + check_refusals(arguments, folder)


if __name__ == "__main__":
    run_checks(check)
