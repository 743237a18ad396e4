"""`skipper experts` on the demo model: what it writes, what `skipper frontier` makes of it, and what both refuse."""

import os
import sys

import skipper_process
from command_check import EXIT_ERROR, error_line, read_json, run_checks, write_json

NUM_BUCKETS = 40


def run_experts(arguments, data, out, *more, ranks=0):
    command = ["experts", "--model", arguments.model, "--data", data, "--out", out, *more]
    return skipper_process.run(arguments.binary, command, ranks=ranks, timeout=120)


def make_ratings(arguments, data, folder):
    """Two runs write the same bytes."""
    written = []
    for name in ("experts.json", "again.json"):
        path = os.path.join(folder, name)
        result = run_experts(arguments, data, path, "--limit", "12")
        if result.returncode != 0:
            sys.exit(f"experts: status {result.returncode}\n{result.stderr}")
        with open(path, encoding="utf-8") as file:
            written.append(file.read())
    print(result.stdout, end="")
    return path, [] if written[0] == written[1] else ["two runs differ"]


def check_ratings(ratings):
    """Means of 1 in each layer, and a likeness that goes both ways and is largest to oneself."""
    failures = []
    num_layers = len(ratings["second_share"]["text"])
    experts = len(ratings["capacity"]) // num_layers
    for layer in range(num_layers):
        for name in ("capacity", "response"):
            mean = sum(ratings[name][layer * experts:(layer + 1) * experts]) / experts
            if abs(mean - 1) > 1e-5:
                failures.append(f"{name} of layer {layer} has a mean of {mean}")
        at = lambda e, f: ratings["similarity"][(layer * experts + e) * experts + f]
        others = [at(e, f) for e in range(experts) for f in range(experts) if e != f]
        if abs(sum(others) / len(others) - 1) > 1e-5:
            failures.append(f"likeness in layer {layer} has a mean of {sum(others) / len(others)}")
        if any(at(e, f) != at(f, e) for e in range(experts) for f in range(e)):
            failures.append(f"likeness in layer {layer} goes one way only")
        if min(at(e, e) for e in range(experts)) < max(others):
            failures.append(f"layer {layer}: an expert is more like another than like itself")
    shares = [share for medians in ratings["second_share"].values() for share in medians]
    return failures + ([] if all(0 < share <= 1 for share in shares) else [f"medians of p_2 / p_1 are {shares}"])


def check_refusals(arguments, data, folder):
    empty, out = os.path.join(folder, "nothing"), os.path.join(folder, "refused.json")
    os.mkdir(empty)
    failures = []
    for name, source, target, ranks, expected in (
        ("two ranks", data, out, 2, "run it on 1 rank, not on 2"),
        ("no data", os.path.join(folder, "gone"), out, 0, "gone: does not exist"),
        ("empty data", empty, out, 0, "nothing: "),
        ("questions without pictures", os.path.join(data, "chat.jsonl"), out, 0, "holds no vision token"),
        ("unwritable output", data, "/nonexistent/e.json", 0, "/nonexistent/e.json: cannot"),
    ):
        result = run_experts(arguments, source, target, "--limit", "4", ranks=ranks)
        print(f"{name}: {error_line(result)}")
        if result.returncode != EXIT_ERROR or expected not in error_line(result) or os.path.exists(out):
            failures.append(f"{name}: status {result.returncode}, {error_line(result)}, expected {expected!r}")
    return failures


def make_calibration(ratings, folder):
    """Equal alpha, and routing weights as even as a made-up model's."""
    num_layers = len(ratings["second_share"]["text"])
    alpha, counts = [1 / num_layers] * num_layers, [[1] * NUM_BUCKETS] * num_layers
    edges = [10 ** (2 * (b - NUM_BUCKETS) / NUM_BUCKETS) for b in range(NUM_BUCKETS + 1)]
    return write_json(os.path.join(folder, "calibration.json"),
                      {"version": 1, "model_fingerprint": ratings["model_fingerprint"],
                       "alpha": {"text": alpha, "vision": alpha},
                       "scores": {"edges": edges, "text": counts, "vision": counts}})


def check_frontier(arguments, data, ratings, folder):
    """The methods run with ratings, are left out by name without, and refuse those of others."""
    good, failures = read_json(ratings), []
    calibration = make_calibration(good, folder)
    made = lambda name, patch: write_json(os.path.join(folder, name), {**good, **patch})
    for name, extra, status, expected in (
        ("with ratings", ["--ratings", ratings], 0, ""),
        ("without ratings", [], 0, "method diep is left out: it needs --ratings FILE of 'skipper experts'"),
        ("another model", ["--ratings", made("a.json", {"model_fingerprint": "feed"})], EXIT_ERROR, "made for model feed but"),
        ("other experts", ["--ratings", made("b.json", {"similarity": [1, 2, 3]})], EXIT_ERROR,
         "similarity: has 3 numbers where"),
        ("negative", ["--ratings", made("c.json", {"capacity": [-1.0]})], EXIT_ERROR, "capacity: -1"),
        ("no ratings", ["--ratings", os.path.join(folder, "lost.json")], EXIT_ERROR, "lost.json: cannot be"),
    ):
        page, out = os.path.join(folder, "page.html"), os.path.join(folder, "frontier.json")
        result = skipper_process.run(
            arguments.binary, ["frontier", "--model", arguments.model, "--data", data, "--calibration", calibration,
                               "--out", out, "--html", page, "--methods", "ace,diep,mc_moe", "--grid", "1", "--limit", "20",
                               *extra], timeout=300)
        said = error_line(result) if status else result.stderr
        if result.returncode != status or expected not in said:
            failures.append(f"frontier, {name}: status {result.returncode}, {said}, expected {expected!r}")
        elif status == 0:
            with open(page, encoding="utf-8") as file:
                text = file.read()
            has_both = "(DiEP)" in text and "(ACE" in text
            if has_both != (name == "with ratings"):
                failures.append(f"frontier, {name}: the page has {'both' if has_both else 'not both'} methods")
    return failures


def check_all(arguments, folder):
    data = os.path.join(arguments.model, "calibration")
    ratings, failures = make_ratings(arguments, data, folder)
    failures += check_ratings(read_json(ratings))
    failures += check_refusals(arguments, data, folder)
    failures += check_frontier(arguments, data, ratings, folder)
    return failures


if __name__ == "__main__":
    run_checks(check_all)
