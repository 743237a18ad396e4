"""Shadow copies on the demo model over two ranks: planned, loaded, used where an operating point says so, refused elsewhere."""

import json
import os
import re
import sys

import skipper_process
from command_check import EXIT_ERROR, EXIT_USAGE, check_refusal, read_json, replay_audit, run_checks, short_text, write_json

NUM_LAYERS = 6
RANKS = 2
MEMORY = "1G"
FORMAT = "int4a-g32"
HOPS = (1, 2)
SMALL = ["--limit", "12", "--text_windows", "2"]


def point(**fields):
    alpha = [1 / NUM_LAYERS] * NUM_LAYERS
    return {"version": 1, "alpha": {"text": alpha, "vision": alpha}, "tau": {"text": 0, "vision": 0}, **fields}


def of_hops(tau):
    return {name: {"node": tau, "network": tau} for name in ("text", "vision")}


class Case:
    def __init__(self, arguments, folder):
        self.arguments, self.folder = arguments, folder

    def run_plan(self, name, *flags):
        return skipper_process.run(
            self.arguments.binary,
            ["plan", "--model", self.arguments.model, "--device", "cpu", "--ranks", str(RANKS), "--memory", MEMORY,
             "--out", os.path.join(self.folder, name), *flags])

    def plan(self, name, *flags):
        result = self.run_plan(name, *flags)
        if result.returncode != 0:
            sys.exit(f"plan {flags}: status {result.returncode}\n{result.stderr}")
        return os.path.join(self.folder, name)

    def measure(self, points, *flags):
        path = os.path.join(self.folder, "points.jsonl")
        with open(path, "w", encoding="utf-8") as file:
            file.write("\n".join(map(json.dumps, points)) + "\n")
        data = os.path.join(self.arguments.model, "calibration")
        return skipper_process.run(
            self.arguments.binary,
            ["measure", "--model", self.arguments.model, "--data", data, "--points", path, *SMALL, *flags],
            ranks=RANKS, timeout=300)

    def measured(self, points, *flags):
        """(KL, bytes between ranks) of level 0 and of each point, over all samples."""
        result = self.measure(points, *flags)
        if result.returncode != 0:
            sys.exit(f"measure {flags}: status {result.returncode}\n{result.stderr}")
        lines = [json.loads(line)["kinds"].values() for line in result.stdout.splitlines()[1:]]
        remote = lambda kind: sum(kind["sums"]["bytes_sent"][hop] for hop in HOPS)
        return [(sum(kind["sums"]["kl"] for kind in kinds), sum(map(remote, kinds))) for kinds in lines]


def check_plans(case, whole, shadowed):
    failures = []
    plain, plan = read_json(whole), read_json(shadowed)
    serving = [one for one in plan["copies"] if not one["shadow"]]
    key = lambda one: (one["layer"], one["expert"])
    if sorted(serving, key=key) != sorted(plain["copies"], key=key):
        failures.append("shadows change what serves")
    shadows = [one for one in plan["copies"] if one["shadow"]]
    if len(shadows) != (RANKS - 1) * len(serving) or {one["format"] for one in shadows} != {FORMAT}:
        failures.append(f"{len(shadows)} shadows of {len(serving)} experts")
    small = read_json(case.plan("small.json", "--shadow_format", FORMAT, "--shadow_memory", "1M"))
    num_small = sum(one["shadow"] for one in small["copies"])
    print(f"{len(shadows)} shadows, {num_small} in 1 MB a rank")
    if not 0 < num_small < len(shadows):
        failures.append(f"{num_small} shadows in 1 MB a rank")
    return failures


def check_measured(case, whole, shadowed):
    """A shadow loses less than skipping what it stands for, and no trip is made for it."""
    shadow = [point(tau_shadow=of_hops(tau)) for tau in (0, 1e-4, 2.0)]
    level_0, zero, some, all_local = case.measured(shadow, "--plan", shadowed)
    plain, skipped = case.measured([point(tau_dst=of_hops(2.0))], "--plan", whole)
    print(f"bytes {level_0[1]}, some shadows {some[1]}, all {all_local[1]}")
    print(f"KL {some[0]:.4f}, {all_local[0]:.4f}, skipped {skipped[0]:.4f}")
    failures = []
    if level_0 != (0.0, plain[1]) or zero != level_0:
        failures.append(f"a threshold of 0 changes something: {level_0}, {zero}, {plain}")
    if not all_local[1] < some[1] < level_0[1]:
        failures.append("bytes do not fall with the threshold")
    if not 0 < some[0] < all_local[0] < skipped[0]:
        failures.append("KL does not rise with the threshold, or shadows lose more than nothing in their place")
    return failures


def check_audit(case, shadowed):
    """Replay tells shadows from trips, and finds a decision that was changed."""
    path = write_json(os.path.join(case.folder, "point.json"), point(tau_shadow=of_hops(1e-4)))
    audit = os.path.join(case.folder, "audit.jsonl")
    data = short_text(case.arguments.model, 4000, os.path.join(case.folder, "data"))
    result = skipper_process.run(
        case.arguments.binary,
        ["eval", "--model", case.arguments.model, "--data", data, "--plan", shadowed, "--operating_point", path,
         "--audit_file", audit, "--audit_rate", "1", "--json", os.path.join(case.folder, "eval.json")], ranks=RANKS)
    failures = [] if result.returncode == 0 else [f"eval with shadows: {result.stderr}"]
    for rank in range(RANKS):
        output, differences = replay_audit(case.arguments.binary, f"{audit}.rank{rank}")
        failures += differences
        if not re.search(r", skipped 0 .*, on shadows [1-9]", output):
            failures.append(f"with a shadow of every expert: {output}")
    with open(f"{audit}.rank0", encoding="utf-8") as file:
        lines = file.read()
    with open(os.path.join(case.folder, "edited"), "w", encoding="utf-8") as file:
        file.write(re.sub(r'("on_shadow":\[[^]]*)true', r"\1false", lines, count=1))
    replay = lambda *flags: skipper_process.run(case.arguments.binary, ["replay", "--audit", *flags])
    failures += check_refusal("edited", replay(file.name), EXIT_ERROR, "was logged as kept but is on a shadow")
    other = ["--operating_point", path]
    failures += check_refusal("4 ranks", replay(f"{audit}.rank0", *other, "--ranks", "4"), EXIT_ERROR, "needs shadow copies")
    same = replay(f"{audit}.rank0", *other).stdout
    print(same)
    on_shadows = re.search(r"^on shadows .*\ntext +\d+ +(\d+) \(.* %\) +(\d+) \(", same, re.M)
    if not on_shadows or int(on_shadows[1]) == 0 or on_shadows[1] != on_shadows[2]:
        failures.append(f"the same point again: {same}")
    return failures


def check_refusals(case, whole, shadowed):
    used = [point(tau_shadow=of_hops(0.1))]
    failures = check_refusal("no shadows", case.measure(used, "--plan", whole), EXIT_ERROR,
                             "needs shadow copies, but no rank has any")
    failures += check_refusal("no plan", case.measure(used), EXIT_ERROR, "needs shadow copies, but no rank has any")
    for name, flags, status, expected in (
        ("no format", ["--shadow_memory", "1M"], EXIT_USAGE, "--shadow_memory needs --shadow_format"),
        ("unknown format", ["--shadow_format", "int5"], EXIT_USAGE, "int5"),
        ("three sizes", ["--shadow_format", FORMAT, "--shadow_memory", "1M,2M,3M"], EXIT_USAGE, "3 sizes for 2 ranks"),
        ("too much", ["--shadow_format", FORMAT, "--shadow_memory", "2G"], EXIT_ERROR, "raise --memory or lower --shadow_memory"),
    ):
        out = os.path.join(case.folder, "none.json")
        failures += check_refusal(name, case.run_plan("none.json", *flags), status, expected, out)
    return failures


def check_frontier(case, whole, shadowed):
    """A ladder by bytes has levels with shadows, which other commands take; where there are none, nobody looks for them."""
    out = os.path.join(case.folder, "frontier.json")
    model = case.arguments.model
    command = ["frontier", "--model", model, "--data", os.path.join(model, "calibration"), "--calibration",
               os.path.join(model, "calibration.json"), "--grid", "2", "--limit", "30", "--out", out]
    bytes_flags = ["--objective", "bytes", "--destination_grid", "0"]
    run = lambda *flags, ranks=RANKS: skipper_process.run(case.arguments.binary, [*command, *flags], ranks=ranks)
    result = run(*bytes_flags, "--plan", shadowed, "--shadow_grid", "2")
    if result.returncode != 0:
        return [f"frontier: {result.stderr}"]
    print(result.stdout)
    levels = read_json(out)["levels"]
    saved = [level["measured"]["bytes"]["node"]["saved"] for level in levels]
    with_shadows = [place for place, level in enumerate(levels) if "tau_shadow" in level]
    failures = [] if with_shadows and saved == sorted(saved) else [f"levels with shadows: {with_shadows}, bytes saved {saved}"]
    data = os.path.join(case.folder, "data")
    evaluated = skipper_process.run(
        case.arguments.binary,
        ["eval", "--model", model, "--data", data, "--plan", shadowed, "--operating_point", out, "--level",
         str(with_shadows[0] if with_shadows else 0)], ranks=RANKS)
    if evaluated.returncode != 0:
        failures.append(f"eval of a level with shadows: {evaluated.stderr}")
    os.remove(out)
    for name, flags, status, expected in (
        ("shadows of no plan", [*bytes_flags, "--shadow_grid", "1"], EXIT_USAGE, "--shadow_grid needs --plan"),
        ("shadows by pairs", ["--plan", shadowed, "--shadow_grid", "1"], EXIT_USAGE, "--shadow_grid needs --objective"),
        ("a plan without", [*bytes_flags, "--plan", whole, "--shadow_grid", "1"], EXIT_ERROR, "need shadow copies, but"),
        ("precision", ["--precision", "true", "--plan", whole], EXIT_USAGE, "--grid is of levels of skipping"),
    ):
        failures += check_refusal(f"frontier, {name}", run(*flags), status, expected, out)
    return failures


def check_serving(case, shadowed):
    """Answers with shadows, and counts them alike in usage, metrics and audit."""
    operating_point = os.path.join(case.folder, "point.json")
    with open(operating_point, "w", encoding="utf-8") as file:
        json.dump(point(tau_shadow=of_hops(2.0)), file)
    audit = os.path.join(case.folder, "served.jsonl")
    flags = ["--model", case.arguments.model, "--device", "cpu", "--plan", shadowed, "--operating_point", operating_point,
             "--level", "1", "--audit_file", audit, "--audit_rate", "1"]
    body = {"model": "demo", "messages": [{"role": "user", "content": "What is 2 + 2?"}], "max_completion_tokens": 4}
    with skipper_process.Server(case.arguments.binary, flags, ranks=RANKS) as server:
        status, answer = skipper_process.post_json(server.url + "/v1/chat/completions", body)
        usage = answer["usage"]["skipper"]
        metric = lambda: skipper_process.metric(server.url, "skipper_pairs_on_shadows_total")
        skipper_process.wait_until(lambda: metric() == usage["pairs_shadow"], timeout=10)  # the last step's may come later
        counted = metric()
    failures = [] if status == 200 and answer["usage"]["completion_tokens"] > 0 else [f"serve: {status} {answer}"]
    decisions = []
    for rank in range(RANKS):
        with open(f"{audit}.rank{rank}", encoding="utf-8") as file:
            decisions += [json.loads(line) for line in file if '"on_shadow":[' in line]
    logged = sum(sum(one["on_shadow"]) for one in decisions)
    print(f"serve with shadows: {status}, {usage}, metrics {counted}, audit {logged}")
    if not 0 < usage["pairs_shadow"] == counted == logged or usage["pairs_shadow"] >= usage["pairs_run"]:
        failures.append(f"pairs on shadows: usage {usage}, metrics {counted}, audit {logged}")
    if usage["pairs_run"] + usage["pairs_skipped"] != sum(len(one["experts"]) for one in decisions):
        failures.append(f"pairs run and skipped are not those routed: {usage}, {len(decisions)} decisions")
    return failures


def check(arguments, folder):
    case = Case(arguments, folder)
    whole = case.plan("whole.json")
    shadowed = case.plan("shadowed.json", "--shadow_format", FORMAT)
    return (check_plans(case, whole, shadowed) + check_measured(case, whole, shadowed) + check_refusals(case, whole, shadowed)
            + check_audit(case, shadowed) + check_frontier(case, whole, shadowed) + check_serving(case, shadowed))


if __name__ == "__main__":
    run_checks(check)
