"""`skipper measure` on the demo model: lines of samples, predictions kept for another run, and what it refuses."""

import json
import os
import sys

import skipper_process
from command_check import EXIT_ERROR, EXIT_USAGE, check_refusal, run_checks

NUM_LAYERS, NUM_EXPERTS = 6, 32
SMALL = ["--limit", "20", "--text_windows", "1"]
KINDS = {"texts", "questions", "visual_questions"}


def point(tau, **fields):
    alpha = [1 / NUM_LAYERS] * NUM_LAYERS
    return {"version": 1, "alpha": {"text": alpha, "vision": alpha}, "tau": {"text": tau, "vision": tau}, **fields}


def write_points(folder, name, *points):
    path = os.path.join(folder, name)
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n\n".join(one if isinstance(one, str) else json.dumps(one) for one in points) + "\n")
    return path


def measure(arguments, points, *more, ranks=0):
    data = os.path.join(arguments.model, "calibration")
    return skipper_process.run(
        arguments.binary, ["measure", "--model", arguments.model, "--data", data, "--points", points, *SMALL, *more], ranks=ranks,
        timeout=300)


def measured(arguments, points, *more, ranks=0):
    """(samples, level 0, points)."""
    result = measure(arguments, points, *more, ranks=ranks)
    if result.returncode != 0:
        sys.exit(f"measure ended with status {result.returncode}:\n{result.stderr}")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    return lines[0]["samples"], lines[1]["kinds"], [line["kinds"] for line in lines[2:]]


def total(kinds, field):
    return sum(sum(kind[field]) for kind in kinds.values())


def check_points(samples, level_0, points):
    failures = []
    if set(samples) != KINDS or len(points) != 2:
        failures.append(f"{len(points)} points over {set(samples)}")
    if total(level_0, "kl") != 0 or total(level_0, "flips") != 0:
        failures.append("level 0 is not itself")
    if not 0 < total(points[0], "kl") < total(points[1], "kl"):
        failures.append(f"KL is {total(points[0], 'kl')} and, at the higher threshold, {total(points[1], 'kl')}")
    for kinds in (level_0, *points):
        for name, kind in kinds.items():
            lengths = {field: len(kind[field]) for field in ("kl", "nll", "flips", *(("right",) if name != "texts" else ()))}
            if set(lengths.values()) != {len(samples[name]["scored"])}:
                failures.append(f"{name} has {lengths} of {len(samples[name]['scored'])} samples")
            if abs(sum(kind["kl"]) - kind["sums"]["kl"]) > 1e-9:
                failures.append(f"{name}: KL of samples {sum(kind['kl'])}, together {kind['sums']['kl']}")
    return failures


def check_references(arguments, folder, points):
    """What one rank kept, two ranks compare with: they differ by rounding, INT8 messages by more."""
    kept = os.path.join(folder, "references")
    config = os.path.join(folder, "int8.json")
    with open(config, "w", encoding="utf-8") as file:
        file.write('{"dispatch": {"payload_dtype": "int8"}}')
    measured(arguments, points, "--save_reference", kept)
    _, plain, _ = measured(arguments, points, "--reference", kept, ranks=2)
    _, coded, _ = measured(arguments, points, "--reference", kept, "--config", config, ranks=2)
    print(f"KL of 2 ranks from 1: {total(plain, 'kl'):.2e}, with INT8 messages {total(coded, 'kl'):.2e}")
    failures = [] if 0 < total(plain, "kl") < total(coded, "kl") < 1 else ["distances from kept predictions are wrong"]
    result = measure(arguments, points, "--reference", kept, "--limit", "10")
    if result.returncode != EXIT_ERROR or "save them again with the same model, data and limits" not in result.stderr:
        failures.append(f"other samples: status {result.returncode}, {result.stderr}")
    return failures


def formats(format_of):
    return {"expert_formats": [[format_of(layer, expert) for expert in range(NUM_EXPERTS)] for layer in range(NUM_LAYERS)]}


def check_formats(arguments, folder):
    """Lines that change formats do what --experts does, keep until the next, and leave nothing behind."""
    mixed = formats(lambda layer, expert: ("bf16", "int8-g64", "int2a-g32")[(layer + expert) % 3])
    lines = (formats(lambda *_: "int4a-g32"), mixed, point(0.03), formats(lambda *_: "bf16"), point(0.03))
    _, level_0, (int4, some, skipped_some, restored, skipped) = measured(arguments, write_points(folder, "formats", *lines))
    _, started, _ = measured(arguments, write_points(folder, "none"), "--experts", "int4a-g32")
    losses = [total(kinds, "kl") for kinds in (int4, some, skipped_some, restored, skipped)]
    print("KL of int4, mixed formats, mixed and skipped, restored, skipped:", losses)
    failures = []
    if [int4[name]["nll"] for name in KINDS] != [started[name]["nll"] for name in KINDS]:
        failures.append("formats of a line are not those of --experts")
    if losses[3] != 0 or [restored[name]["nll"] for name in KINDS] != [level_0[name]["nll"] for name in KINDS]:
        failures.append("unrounded experts are not what they were")
    if not min(losses[0], losses[1], losses[4]) > 0 or losses[2] in (losses[1], losses[4]):
        failures.append(f"a line changed nothing: {losses}")
    _, _, (alone,) = measured(arguments, write_points(folder, "alone", point(0.03)))
    if any(alone[name][field] != skipped[name][field] for name in KINDS for field in ("kl", "nll", "flips")):
        failures.append("thresholds after formats are not what they are without")
    return failures


def check_format_refusals(arguments, folder):
    good = formats(lambda *_: "int8-g64")
    plan = os.path.join(folder, "plan.json")
    made = skipper_process.run(arguments.binary, ["plan", "--model", arguments.model, "--memory", "2G", "--out", plan])
    failures = [] if made.returncode == 0 else [made.stderr]
    for name, line, extra, ranks, expected in (
        ("layers", {"expert_formats": good["expert_formats"][1:]}, [], 0, "has 6 MoE layers of 32 experts"),
        ("experts", {"expert_formats": [layer[1:] for layer in good["expert_formats"]]}, [], 0, "has 6 MoE layers of 32 experts"),
        ("name", formats(lambda *_: "int5"), [], 0, "line 1, expert_formats: unknown weight format 'int5'"),
        ("no lists", {"expert_formats": "int8-g64"}, [], 0, "is no list of lists of names"),
        ("beside a point", {**good, "tau": {"text": 0, "vision": 0}}, [], 0, "stands beside other keys"),
        ("2 ranks", good, [], 2, "change the experts of one rank without a plan"),
        ("plan", good, ["--plan", plan], 0, "change the experts of one rank without a plan"),
    ):
        result = measure(arguments, write_points(folder, "formats", line), *extra, ranks=ranks)
        failures += check_refusal(f"formats, {name}", result, EXIT_ERROR, expected)
    return failures


def check_refusals(arguments, folder, points):
    failures = []
    for name, file, extra, status, expected in (
        ("no file", os.path.join(folder, "gone"), [], EXIT_ERROR, "gone: cannot be opened; check the path of --points"),
        ("no JSON", write_points(folder, "a", point(0.1), "{"), [], EXIT_ERROR, "a, line 3: is no JSON"),
        ("negative", write_points(folder, "b", point(-0.1)), [], EXIT_ERROR, "b, line 1: tau: text: -0.1"),
        ("other ranks", write_points(folder, "c", point(0.1, exempt_local=True, placement={"ranks": 4, "ranks_per_node": 4})), [],
         EXIT_ERROR, "c, line 1: placement"),
        ("no reference", points, ["--reference", os.path.join(folder, "none")], EXIT_ERROR, "none.rank0: cannot be opened"),
        ("both references", points, ["--reference", "a", "--save_reference", "b"], EXIT_USAGE, "exclude each other"),
    ):
        result = measure(arguments, file, *extra)
        failures += check_refusal(name, result, status, expected)
    return failures


def check(arguments, folder):
    points = write_points(folder, "points", point(0.03), point(0.08))
    failures = check_points(*measured(arguments, points, "--answers", "true"))
    failures += check_references(arguments, folder, points)
    failures += check_formats(arguments, folder) + check_format_refusals(arguments, folder)
    return failures + check_refusals(arguments, folder, points)


if __name__ == "__main__":
    run_checks(check)
