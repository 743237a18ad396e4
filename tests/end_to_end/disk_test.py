"""Experts on disk, as users run them: the same answers as in memory, counters that say what the disk has cost, and the replay of
recorded routes through caches."""

import copy
import json
import os

import skipper_process
from command_check import EXIT_ERROR, EXIT_USAGE, check_refusal, read_json, run_checks, short_text, write_json

# Bytes of held-out text: a few windows of 512 tokens.
TEXT_BYTES = 6000
EXPERT_BYTES = 2 * 3 * 256 * 96  # of the demo's, in BF16
CACHE_MB = 3
BODY = {
    "model": "demo",
    "messages": [{"role": "user", "content": "What is 2 + 2?"}],
    "max_completion_tokens": 8,
    "ignore_eos": True,
}


class Case:
    """Plans of the demo model for two ranks: every expert in memory, and every second one of rank 1 on its disk."""

    def __init__(self, arguments, folder):
        self.arguments, self.folder = arguments, folder
        self.data = short_text(arguments.model, TEXT_BYTES, os.path.join(folder, "data"))
        self.config = write_json(os.path.join(folder, "config.json"), {"residency": {"cache_mb": CACHE_MB}})
        self.in_memory = os.path.join(folder, "memory.json")
        self.on_disk = os.path.join(folder, "disk.json")
        result = skipper_process.run(
            arguments.binary,
            ["plan", "--model", arguments.model, "--device", "cpu", "--ranks", "2", "--memory", "2G", "--out", self.in_memory])
        if result.returncode != 0:
            raise AssertionError(f"plan: status {result.returncode}\n{result.stderr}")
        write_json(self.on_disk, with_disk(read_json(self.in_memory)))

    def flags(self, plan):
        model = ["--model", self.arguments.model, "--device", "cpu"]
        return [*model, "--plan", plan, "--config", self.config, "--disk", self.folder]

    def eval(self, plan):
        """The results as JSON, and the table."""
        out = os.path.join(self.folder, "eval.json")
        result = skipper_process.run(
            self.arguments.binary, ["eval", "--data", self.data, "--json", out, *self.flags(plan)], ranks=2)
        if result.returncode != 0:
            raise AssertionError(f"eval: status {result.returncode}\n{result.stderr}")
        return read_json(out), result.stderr


def with_disk(plan):
    changed = copy.deepcopy(plan)
    for one in changed["copies"]:
        if one["rank"] == 1 and one["slot"] % 2 == 1:
            one["tier"] = "disk"
    changed["ranks"][1]["disk"] = {**changed["ranks"][1]["host"]}
    return changed


def check_eval(case):
    """Perplexity to the last digit, and a line for each rank."""
    failures = []
    in_memory, _ = case.eval(case.in_memory)
    on_disk, table = case.eval(case.on_disk)
    if in_memory["perplexity"] != on_disk["perplexity"]:
        failures.append(f"perplexity {on_disk['perplexity']} from disk, {in_memory['perplexity']} in memory")
    if "disk" in in_memory:
        failures.append("a plan without disk speaks of one")
    none, disk = on_disk["disk"]
    print(disk)
    if any(none["needs"].values()) or none["bytes"] != 0 or none["foresight"] != "none":
        failures.append(f"rank 0 has nothing on disk: {none}")
    needs = disk["needs"]
    # Windows of a text run all experts: half of rank 1's are on its disk.
    if needs["memory"] == 0 or abs(needs["hit"] + needs["late"] + needs["miss"] - needs["memory"]) > 0.2 * needs["memory"]:
        failures.append(f"needs of rank 1: {needs}")
    foreseen = disk["foreseen"]
    if needs["miss"] == 0 or disk["bytes"] < needs["miss"] * EXPERT_BYTES:
        failures.append(f"rank 1 misses and does not read: {disk}")
    if foreseen["used"] + foreseen["wasted"] > foreseen["read"]:
        failures.append(f"rank 1 foresees less than it uses: {disk}")
    if disk["busy_seconds"] <= 0 or disk["exposed_seconds"] <= 0:
        failures.append(f"rank 1 reads in no time: {disk}")
    if disk["cache_experts"] != CACHE_MB * 1_000_000 // EXPERT_BYTES:
        failures.append(f"rank 1 has another cache than asked for: {disk}")
    if "experts on disk" not in table or "rank 1" not in table:
        failures.append(f"the table does not speak of the disk: {table}")
    return failures


def check_metrics(case):
    failures = []
    with skipper_process.Server(case.arguments.binary, case.flags(case.on_disk), ranks=2) as server:
        # Two requests, of which each rank gets one.
        for _ in range(2):
            status, answer = skipper_process.post_json(server.url + "/v1/chat/completions", BODY)
            if status != 200:
                failures.append(f"serve: {status} {answer}")

        def value(name, **labels):
            return skipper_process.metric(server.url, "skipper_" + name, **labels)

        outcomes = ("hit", "late", "miss")
        of_disk = {outcome: value("expert_needs_total", rank="1", tier="disk", outcome=outcome) for outcome in outcomes}
        print(of_disk, value("disk_read_bytes_total"), value("disk_exposed_seconds_total"))
        if of_disk["miss"] == 0 or of_disk["hit"] == 0:
            failures.append(f"needs of rank 1: {of_disk}")
        if value("expert_needs_total", rank="0") != 0 or value("disk_read_bytes_total", rank="0") != 0:
            failures.append("rank 0 reads from a disk")
        for name in ("disk_read_bytes_total", "disk_busy_seconds_total", "disk_exposed_seconds_total", "disk_cache_experts"):
            if value(name, rank="1") <= 0:
                failures.append(f"{name} of rank 1 is {value(name, rank='1')}")
    with skipper_process.Server(case.arguments.binary, case.flags(case.in_memory), ranks=2) as server:
        if "skipper_disk" in skipper_process.get(server.url + "/metrics")[1]:
            failures.append("a server without experts on disk speaks of them")
    return failures


def replay(case, audit, *flags):
    return skipper_process.run(case.arguments.binary, ["replay", "--audit", audit, *flags], timeout=60)


def check_replay(case):
    """Routes that a server records, through caches of several sizes."""
    failures = []
    audit = os.path.join(case.folder, "routes.jsonl")
    flags = ["--model", case.arguments.model, "--device", "cpu", "--audit_file", audit, "--audit_rate", "1"]
    with skipper_process.Server(case.arguments.binary, flags) as server:
        for question in ("What is 2 + 2?", "Tell me about rivers."):
            body = {**BODY, "messages": [{"role": "user", "content": question}], "max_completion_tokens": 40}
            status, answer = skipper_process.post_json(server.url + "/v1/chat/completions", body)
            if status != 200:
                failures.append(f"serve: {status} {answer}")
    out = os.path.join(case.folder, "replay.json")
    result = replay(case, audit, "--cache", "8,48,192,3M", "--model", case.arguments.model, "--json", out)
    print(result.stdout, end="")
    if result.returncode != 0 or "all tokens: 6 MoE layers of 32 experts" not in result.stdout:
        return failures + [f"replay --cache: status {result.returncode}\n{result.stdout}{result.stderr}"]
    found = read_json(out)
    generated = found["generated_tokens"]
    # Two answers of 40 tokens, of which the last is not run; six layers, top-4.
    if generated["needs"] != 2 * 39 * 6 * 4 or generated["expert_bytes"] < EXPERT_BYTES:
        failures.append(f"routes of generated tokens: {generated}")
    if [cache["experts"] for cache in generated["caches"]] != [8, 48, 192, 3_000_000 // generated["expert_bytes"]]:
        failures.append(f"other caches than asked for: {generated['caches']}")
    for trace in found.values():
        last = 0
        for cache in trace["caches"][:3]:
            rates, oracle = cache["hit_rate"], cache["oracle"]
            if not last <= rates["belady"] <= 1 or max(rates.values()) > rates["belady"]:
                failures.append(f"rates of {cache['experts']} experts: {rates}")
            if not rates["edge"] <= oracle["1"] <= oracle["2"] <= oracle["4"] <= oracle["all"] <= 1:
                failures.append(f"oracles of {cache['experts']} experts: {oracle}, edge {rates['edge']}")
            last = rates["belady"]
    return failures + check_replay_refusals(case, audit)


def check_replay_refusals(case, audit):
    other = os.path.join(case.folder, "other.jsonl")
    with open(audit, encoding="utf-8") as file:
        header, *lines = file.readlines()
    changed = json.loads(header)
    changed["model_fingerprint"] = "00000000000000ff"
    with open(other, "w", encoding="utf-8") as file:
        file.writelines([json.dumps(changed) + "\n", *lines])
    model = ["--model", case.arguments.model]
    cases = [
        ("no size", audit, ["--cache", "some"], EXIT_USAGE, "'some' is no size of memory"),
        ("none", audit, ["--cache", "0"], EXIT_USAGE, "'0' is out of range"),
        ("bytes alone", audit, ["--cache", "3M"], EXIT_USAGE, "give --model DIR"),
        ("too few bytes", audit, ["--cache", "3K", *model], EXIT_USAGE, "'3K' holds no expert"),
        ("two things", audit, ["--cache", "8", "--ranks", "2"], EXIT_USAGE, "--cache and --ranks exclude"),
        ("json alone", audit, ["--json", "x.json"], EXIT_USAGE, "--json needs --cache"),
        ("format alone", audit, ["--cache", "8", "--experts", "bf16"], EXIT_USAGE, "--experts needs --model"),
        ("no format", audit, ["--cache", "8", "--experts", "int5", *model], EXIT_USAGE, "int5"),
        ("other model", other, ["--cache", "8", *model], EXIT_ERROR, "recorded with model 00000000000000ff"),
        ("no file", audit + "x", ["--cache", "8"], EXIT_ERROR, "routes.jsonlx: cannot be read"),
        ("no audit", os.path.join(case.arguments.model, "config.json"), ["--cache", "8"], EXIT_ERROR, "is not the start of an"),
        ("no folder", audit, ["--cache", "8", "--json", "/nonexistent/x.json"], EXIT_ERROR, "/nonexistent/x.json"),
    ]
    failures = []
    for name, file, flags, status, expected in cases:
        failures += check_refusal(name, replay(case, file, *flags), status, expected)
    return failures


def check(arguments, folder):
    case = Case(arguments, folder)
    return check_eval(case) + check_metrics(case) + check_replay(case)


if __name__ == "__main__":
    run_checks(check)
