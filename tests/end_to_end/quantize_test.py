"""`skipper quantize` on the demo model: what it makes is evaluated, what it refuses leaves nothing behind."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys

import skipper_process
from command_check import EXIT_ERROR, EXIT_USAGE, check_refusal, error_line, run_checks, short_text

# Bytes of held-out text: a few windows of 512 tokens.
TEXT_BYTES = 20000


def quantize(arguments, out, flags=(), model=None, file_limit=None):
    """The CompletedProcess; `file_limit` bytes per file act like a full disk."""

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, resource.RLIM_INFINITY))

    return subprocess.run(
        [arguments.binary, "quantize", "--model", model or arguments.model, "--out", out, *flags],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        restore_signals=file_limit is None,
        preexec_fn=limit if file_limit else None,
    )


def tensor_bytes(model):
    """From the index, or the sizes of the files where there is no index."""
    with open(os.path.join(model, "model.safetensors.index.json"), encoding="utf-8") as file:
        return json.load(file)["metadata"]["total_size"]


def perplexity(arguments, model, data, folder):
    out = os.path.join(folder, "eval.json")
    result = skipper_process.run(arguments.binary, ["eval", "--model", model, "--data", data, "--json", out], timeout=600)
    if result.returncode != 0:
        sys.exit(f"eval of {model} ended with status {result.returncode}:\n{result.stderr}")
    with open(out, encoding="utf-8") as file:
        return json.load(file)["perplexity"]["text"]["perplexity"]


def check_quality(arguments, folder):
    """Names and sizes of what was made, and its perplexity against the original's."""
    failures = []
    data = short_text(arguments.model, TEXT_BYTES, os.path.join(folder, "data"))
    original = perplexity(arguments, arguments.model, data, folder)
    for experts, dense, bound in (("int8-g64", "int8-g64", 0.005), ("int4a-g32", None, 0.05)):
        out = os.path.join(folder, f"{experts}-{dense}")
        result = quantize(arguments, out, ["--experts", experts] + (["--dense", dense] if dense else []))
        if result.returncode != 0:
            return [f"quantize {experts}: status {result.returncode}\n{result.stderr}"]
        print(result.stdout, end="")
        for expected in (f"experts: {experts}, ", "bits per weight", "relative error", "quantising, MB: "):
            if expected not in result.stdout + result.stderr:
                failures.append(f"quantize {experts} does not print {expected!r}")
        if tensor_bytes(out) >= tensor_bytes(arguments.model):
            failures.append(f"{experts}: {tensor_bytes(out)} bytes are not fewer than {tensor_bytes(arguments.model)}")
        found = perplexity(arguments, out, data, folder)
        print(f"{experts} with dense {dense}: perplexity {found:.4f}, of the original {original:.4f}")
        if abs(found / original - 1) > bound:
            failures.append(f"{experts}: perplexity {found} is not within {bound:.1%} of {original}")
    return failures


def check_refusals(arguments, folder):
    full = os.path.join(folder, "full")
    os.mkdir(full)
    open(os.path.join(full, "file"), "w", encoding="utf-8").close()
    quantized = os.path.join(folder, "quantized")
    quantize(arguments, quantized, ["--experts", "int8-g32"])
    new = os.path.join(folder, "new")
    good = ["--experts", "int8-g64"]
    failures = []
    for name, out, flags, model, limit, status, expected in (
        ("unknown format", new, ["--experts", "int4a-g23"], None, None, EXIT_USAGE, "unknown weight format 'int4a-g23'; did you"),
        ("unknown dense format", new, good + ["--dense", "fp8"], None, None, EXIT_USAGE, "--dense: unknown weight format 'fp8'"),
        ("FP32", new, ["--experts", "f32"], None, None, EXIT_USAGE, "--experts: f32 is no format to quantise to"),
        ("output that is not empty", full, good, None, None, EXIT_ERROR, "full: exists and is not empty"),
        ("output is the model", arguments.model, good, None, None, EXIT_ERROR, "exists and is not empty"),
        ("no parent", os.path.join(new, "new"), good, None, None, EXIT_ERROR, "make its parent directory"),
        ("no model", new, good, "/nonexistent", None, EXIT_ERROR, "/nonexistent"),
        ("quantised model", new, good, quantized, None, EXIT_ERROR, "is quantised already (experts int8-g32)"),
        ("full disk", new, good, None, 1_000_000, EXIT_ERROR, "cannot be written (File too large); free space"),
        *((name, new, flags, None, None, status, part) for name, flags, status, part in calibration_refusals(folder)),
    ):
        result = quantize(arguments, out, flags, model, limit)
        failures += check_refusal(name, result, status, expected)
        if os.path.exists(new) or os.path.exists(new + ".partial"):
            failures.append(f"{name}: something was left of the output")
            shutil.rmtree(new, ignore_errors=True)
            shutil.rmtree(new + ".partial", ignore_errors=True)
    return failures


def check_calibration(arguments, folder):
    """Measured inputs make other codes, which load; what they were measured on stands in the config."""
    out = os.path.join(folder, "calibrated")
    plain = os.path.join(folder, "plain")
    data = os.path.join(arguments.model, "calibration")
    text = short_text(arguments.model, TEXT_BYTES, os.path.join(folder, "calibrated_data"))
    flags = ["--experts", "int3a-g32", "--dense", "int4-g32"]
    result = quantize(arguments, out, flags + ["--calibration", data, "--calibration_limit", "24"])
    if result.returncode != 0:
        return [f"--calibration: status {result.returncode}\n{result.stderr}"]
    failures = []
    for expected in ("calibrating, samples: 24 of 24", "calibrated on 24 samples", "quantising, MB: "):
        if expected not in result.stderr:
            failures.append(f"--calibration does not print {expected!r}: {result.stderr}")
    with open(os.path.join(out, "config.json"), encoding="utf-8") as file:
        record = json.load(file)["quantization_config"]["calibration"]
    print(f"calibration: {record}")
    if record["data"] != "calibration" or record["samples"] != 24 or record["tokens"] < 24:
        failures.append(f"the config says {record} of the calibration")
    quantize(arguments, plain, flags)
    calibrated, rounded = (perplexity(arguments, model, text, folder) for model in (out, plain))
    print(f"perplexity of int3a-g32: {calibrated:.4f} calibrated, {rounded:.4f} by the weights alone")
    if calibrated == rounded or abs(calibrated / rounded - 1) > 0.1:
        failures.append(f"perplexity {calibrated} with calibration, {rounded} without")
    return failures


def calibration_refusals(folder):
    """(name, flags, status, part of the error) of data that cannot calibrate."""
    files = {"empty.jsonl": "", "bad.jsonl": '\n{"task":', "short.jsonl": '{"task": "t", "question": "q", "answer": "a"}',
             "long.jsonl": json.dumps({"task": "t", "question": "a long word " * 3000, "answer": "a"})}
    for name, content in files.items():
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            file.write(content)

    def flags(name, experts="int4a-g32"):
        return ["--experts", experts, "--calibration", os.path.join(folder, name)]

    return (
        ("no calibration data", flags("gone.jsonl"), EXIT_ERROR, "gone.jsonl: does not exist"),
        ("empty calibration data", flags("empty.jsonl"), EXIT_ERROR, "empty.jsonl: holds no sample"),
        ("malformed calibration data", flags("bad.jsonl"), EXIT_ERROR, "bad.jsonl:2: not valid JSON"),
        ("hardly any calibration data", flags("short.jsonl"), EXIT_ERROR, "at least 32 are needed"),
        ("too long calibration data", flags("long.jsonl"), EXIT_ERROR, "none of 1 samples fits into 4096 tokens"),
        ("calibrated BF16", flags("short.jsonl", "bf16"), EXIT_USAGE, "bf16 weights are not rounded to codes"),
    )


def check_operating_point(arguments, folder):
    """Thresholds calibrated on the original are not the quantised model's: both are named."""
    out = os.path.join(folder, "other_model")
    quantize(arguments, out, ["--experts", "int8-g64"])
    with open(os.path.join(out, "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    original = config["quantization_config"]["source_fingerprint"]
    num_layers = config["text_config"]["num_hidden_layers"]
    alpha = [1 / num_layers] * num_layers
    point = os.path.join(folder, "point.json")
    with open(point, "w", encoding="utf-8") as file:
        json.dump({"version": 1, "model_fingerprint": original, "alpha": {"text": alpha, "vision": alpha},
                   "tau": {"text": 0.01, "vision": 0.01}}, file)
    flags = ["eval", "--data", os.path.join(arguments.model, "eval"), "--operating_point", point, "--model"]
    line = error_line(skipper_process.run(arguments.binary, flags + [out]))
    print(f"operating point of the original: {line}")
    if f"made for model {original} but the loaded model is " not in line:
        return [f"an operating point of the original: {line}"]
    return []


def check_signal(arguments, folder):
    """Whenever the signal comes, the output is whole or absent."""
    out = os.path.join(folder, "stopped")
    process = subprocess.Popen(
        [arguments.binary, "quantize", "--model", arguments.model, "--out", out, "--experts", "int2a-g32", "--threads", "1"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    skipper_process.wait_until(lambda: os.path.exists(out + ".partial") or process.poll() is not None, interval=0.001)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    print(f"SIGTERM: status {process.returncode}, {errors.strip()}")
    if os.path.exists(out + ".partial"):
        return ["SIGTERM left an unfinished directory"]
    if process.returncode == 0:
        return [] if os.path.exists(os.path.join(out, "config.json")) else ["status 0 without an output"]
    if process.returncode != EXIT_ERROR or "stopped by a signal" not in errors or os.path.exists(out):
        return [f"SIGTERM: status {process.returncode}, {errors}"]
    return []


def check(arguments, folder):
    failures = check_refusals(arguments, folder) + check_operating_point(arguments, folder)
    failures += check_signal(arguments, folder) + check_calibration(arguments, folder)
    return failures + check_quality(arguments, folder)


if __name__ == "__main__":
    run_checks(check)
