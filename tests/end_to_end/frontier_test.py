"""`skipper frontier` on the demo model: a ladder that eval loads, a page with all curves, and what it refuses."""

import json
import os
import signal
import subprocess
import xml.etree.ElementTree

import skipper_process
from command_check import EXIT_ERROR, EXIT_USAGE, check_refusal, read_json, run_checks, write_json

METHODS = 11
NUM_BUCKETS = 40
# A few dozen questions and a coarse grid: the search, not its result, is tested.
SMALL = ["--limit", "50", "--grid", "6"]


def fingerprint_of(arguments, folder):
    """Any operating point of another model is refused with the fingerprint of this one."""
    point = os.path.join(folder, "other_model.json")
    with open(point, "w", encoding="utf-8") as file:
        json.dump({"version": 1, "model_fingerprint": "other", "alpha": {}, "tau": {}}, file)
    data = os.path.join(arguments.model, "calibration")
    result = skipper_process.run(
        arguments.binary, ["eval", "--model", arguments.model, "--data", data, "--operating_point", point])
    return result.stderr.split("the loaded model is ")[1].split(";")[0].split(",")[0].strip()


def make_calibration(arguments, folder):
    """Equal alpha, and routing weights as even as a made-up model's."""
    with open(os.path.join(arguments.model, "config.json"), encoding="utf-8") as file:
        num_layers = json.load(file)["text_config"]["num_hidden_layers"]
    edges = [10 ** (2 * (b - NUM_BUCKETS) / NUM_BUCKETS) for b in range(NUM_BUCKETS + 1)]
    alpha = [1 / num_layers] * num_layers
    counts = [[1] * NUM_BUCKETS] * num_layers
    return {"version": 1, "model_fingerprint": fingerprint_of(arguments, folder), "alpha": {"text": alpha, "vision": alpha},
            "scores": {"edges": edges, "text": counts, "vision": counts}}


def flags(arguments, calibration, out, extra=()):
    data = os.path.join(arguments.model, "calibration")
    return ["frontier", "--model", arguments.model, "--data", data, "--calibration", calibration, "--out", out, *SMALL, *extra]


def thresholds(frontier):
    return [(level["alpha"], level.get("tau"), level.get("tau_dst")) for level in frontier["levels"]]


def losses(frontier):
    return [level["measured"]["kl"] for level in frontier["levels"]]


def check_ladder(name, frontier):
    """Level 0 skips nothing; skip ratio and KL ascend; what must be there is."""
    failures = []
    measured = [level["measured"] for level in frontier["levels"]]
    if len(measured) < 4:
        failures.append(f"{name}: only {len(measured)} levels")
    if measured[0]["kl"] != 0 or measured[0]["skip_ratio"]["all"] != 0 or measured[0]["top1_flips"] != 0:
        failures.append(f"{name}: level 0 is not the unskipped model: {measured[0]}")
    for low, high in zip(measured, measured[1:]):
        if high["skip_ratio"]["all"] <= low["skip_ratio"]["all"] or high["kl"] < low["kl"]:
            failures.append(f"{name}: skip ratio or KL falls from {low} to {high}")
    for level in measured:
        if level["answer_tokens"] <= 0 or level["step_ms"] <= 0 or set(level["skip_ratio"]) != {"all", "text", "vision"}:
            failures.append(f"{name}: a level's figures are {level}")
    return failures


def check_page(page, charts):
    """Well-formed, with a curve for each method in each chart, and no outside resource."""
    with open(page, encoding="utf-8") as file:
        text = file.read()
    root = xml.etree.ElementTree.fromstring(text)
    found = [element for element in root.iter() if element.get("class") == "curve"]
    failures = []
    if len(found) != METHODS * charts:
        failures.append(f"the page has {len(found)} curves, expected {METHODS} in each of {charts} charts")
    if any("http" in (element.get(name) or "") for element in root.iter() for name in ("src", "href")):
        failures.append("the page loads something from outside")
    return failures


def check_two_ranks(arguments, calibration, folder):
    """By bytes on two ranks, with all methods and the page."""
    out, page = os.path.join(folder, "bytes.json"), os.path.join(folder, "page.html")
    extra = ["--objective", "bytes", "--methods", "all", "--html", page, "--destination_grid", "1", "--grid", "2"]
    result = skipper_process.run(arguments.binary, flags(arguments, calibration, out, extra), ranks=2, timeout=300)
    if result.returncode != 0:
        return [f"two ranks: status {result.returncode}\n{result.stderr}"]
    print(result.stdout, end="")
    frontier = read_json(out)
    failures = check_page(page, charts=2)
    if frontier["placement"] != {"ranks": 2, "ranks_per_node": 2}:
        failures.append(f"two ranks: placement {frontier['placement']}")
    saved = [level["measured"]["bytes"]["node"]["saved"] for level in frontier["levels"]]
    if saved[0] != 0 or saved[-1] <= 0:
        failures.append(f"two ranks: bytes saved are {saved}")
    return failures


def check_resume(arguments, calibration, folder, whole):
    """Killed in the middle, the same command goes on and ends with the same thresholds."""
    out = os.path.join(folder, "resumed.json")
    partial = out + ".partial"
    command = [arguments.binary, *flags(arguments, calibration, out)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        measured = lambda: os.path.exists(partial) and sum(1 for _ in open(partial, encoding="utf-8")) > 8
        if not skipper_process.wait_until(lambda: measured() or process.poll() is not None, timeout=120):
            process.kill()
            return ["resume: no measurement in time"]
        process.send_signal(signal.SIGKILL)
    if os.path.exists(out):
        return ["resume: there was a result after the kill"]
    result = skipper_process.run(arguments.binary, flags(arguments, calibration, out), timeout=300)
    failures = []
    if result.returncode != 0 or "going on with " not in result.stderr:
        failures.append(f"resume: status {result.returncode}\n{result.stderr}")
    elif thresholds(read_json(out)) != thresholds(whole):
        failures.append("resume: other thresholds than in one go")
    elif losses(read_json(out)) != losses(whole):
        failures.append("resume: another KL than in one go")
    if os.path.exists(partial):
        failures.append("resume: the partial file was left behind")
    return failures


def check_eval(arguments, folder, out):
    """eval loads the ladder and skips about what the ladder says of its level."""
    data, result_file = os.path.join(folder, "chat"), os.path.join(folder, "eval.json")
    os.mkdir(data)
    with open(os.path.join(arguments.model, "calibration", "chat.jsonl"), encoding="utf-8") as file:
        lines = file.readlines()[:20]
    with open(os.path.join(data, "chat.jsonl"), "w", encoding="utf-8") as file:
        file.writelines(lines)
    result = skipper_process.run(
        arguments.binary, ["eval", "--model", arguments.model, "--data", data, "--operating_point", out, "--level", "3", "--json",
                           result_file])
    if result.returncode != 0:
        return [f"eval of level 3: status {result.returncode}\n{result.stderr}"]
    skip = read_json(result_file)["skip"]
    print(f"eval at level 3: skip ratio {skip['skip_ratio']:.3f}")
    return [] if skip["level"] == 3 and skip["skip_ratio"] > 0 else [f"eval of level 3 skipped {skip}"]


def check_generated(arguments, calibration, folder):
    """Generated tokens may get thresholds of their own."""
    out = os.path.join(folder, "generated.json")
    result = skipper_process.run(arguments.binary, flags(arguments, calibration, out, ["--generated_steps", "6"]), timeout=300)
    if result.returncode != 0:
        return [f"generated: status {result.returncode}\n{result.stderr}"]
    frontier = read_json(out)
    failures = check_ladder("generated", frontier)
    if not any("tau_generated" in level for level in frontier["levels"]):
        failures.append("generated: no level has a threshold for generated tokens")
    return failures


def check_refusals(arguments, calibration, folder):
    good = read_json(calibration)
    text = lambda counts: {**good, "scores": {**good["scores"], "text": counts}}
    num_layers = len(good["alpha"]["text"])
    nan = os.path.join(folder, "nan.json")
    with open(nan, "w", encoding="utf-8") as file:
        file.write(json.dumps(good).replace('"text": [0.', '"text": [NaN, 0.', 1))
    empty = os.path.join(folder, "empty")
    os.mkdir(empty)
    open(os.path.join(empty, "chat.jsonl"), "w", encoding="utf-8").close()
    out = os.path.join(folder, "refused.json")
    made = lambda name, content: write_json(os.path.join(folder, name), content)
    failures = []
    for name, file, target, extra, status, expected in (
        ("other model", made("a.json", {**good, "model_fingerprint": "feed"}), out, [], EXIT_ERROR,
         f"made for model feed but the loaded model is {good['model_fingerprint']}"),
        ("other depth", made("b.json", {**good, "alpha": {"text": [1.0], "vision": [1.0]}}), out, [], EXIT_ERROR,
         f"has 1 numbers but the model has {num_layers} MoE layers"),
        ("other weights", made("e.json", {**good, "convention": {"p": "full softmax"}}), out, [], EXIT_ERROR,
         "convention: p: is of 'full softmax'"),
        ("NaN", nan, out, [], EXIT_ERROR, "nan.json"),
        ("negative count", made("c.json", text([[-1] * NUM_BUCKETS] * num_layers)), out, [], EXIT_ERROR, "-1 is no count"),
        ("class without samples", made("d.json", text([[0] * NUM_BUCKETS] * num_layers)), out, [], EXIT_ERROR, "holds no pair"),
        ("no calibration", os.path.join(folder, "gone.json"), out, [], EXIT_ERROR, "gone.json: cannot be opened"),
        ("empty data", calibration, out, ["--data", empty], EXIT_ERROR, "empty: has no "),
        ("too few samples", calibration, out, ["--limit", "2"], EXIT_ERROR, "too few to hold some out"),
        ("unwritable output", calibration, "/nonexistent/f.json", [], EXIT_ERROR, "/nonexistent/f.json: cannot be written"),
        ("output is a folder", calibration, folder, [], EXIT_ERROR, "is a folder"),
        ("unwritable page", calibration, out, ["--html", "/nonexistent/p.html"], EXIT_ERROR, "/nonexistent/p.html: cannot be"),
        ("little memory", calibration, out, ["--reference_memory", "0"], EXIT_ERROR, "of --reference_memory; raise it"),
        ("bytes of one rank", calibration, out, ["--objective", "bytes", "--limit", "10"], EXIT_ERROR, "start at least 2 ranks"),
        ("unknown objective", calibration, out, ["--objective", "byte"], EXIT_USAGE, "did you mean 'bytes'?"),
        ("unknown method", calibration, out, ["--methods", "dmtt"], EXIT_USAGE, "did you mean 'dmt'?"),
        ("empty grid", calibration, out, ["--grid", "0"], EXIT_USAGE, "--grid: 0 thresholds"),
    ):
        result = skipper_process.run(arguments.binary, flags(arguments, file, target, extra), timeout=120)
        failures += check_refusal(name, result, status, expected, out)
    return failures


def check(arguments, folder):
    calibration = write_json(os.path.join(folder, "calibration.json"), make_calibration(arguments, folder))
    out = os.path.join(folder, "frontier.json")
    result = skipper_process.run(arguments.binary, flags(arguments, calibration, out), timeout=300)
    if result.returncode != 0:
        return [f"frontier: status {result.returncode}\n{result.stderr}"]
    print(result.stdout, end="")
    whole = read_json(out)
    failures = check_ladder("one rank", whole)
    failures += [] if "frontier, passes over the data: " in result.stderr else ["there is no progress"]
    failures += check_eval(arguments, folder, out)
    failures += check_resume(arguments, calibration, folder, whole)
    failures += check_two_ranks(arguments, calibration, folder)
    failures += check_generated(arguments, calibration, folder)
    failures += check_refusals(arguments, calibration, folder)
    return failures


if __name__ == "__main__":
    run_checks(check)
