"""`--plan` on the demo model: what a plan says is loaded, its hashes are checked, and what it cannot mean here is refused."""

import argparse
import copy
import json
import os
import re

import skipper_process
from command_check import (
    EXIT_ERROR, EXIT_USAGE, check_refusal, error_line, read_json, replay_audit, run_checks, short_text, write_json,
)

# Bytes of held-out text: a few windows of 512 tokens.
TEXT_BYTES = 12000
MEMORY = "2G"
NUM_LAYERS, NUM_EXPERTS = 6, 32
MIXED = ("bf16", "int8-g64", "int4a-g32", "int3a-g32")


class Case:
    """The demo model with a short text to evaluate on."""

    def __init__(self, arguments, folder):
        self.arguments, self.folder = arguments, folder
        self.data = short_text(arguments.model, TEXT_BYTES, os.path.join(folder, "data"))

    def plan(self, name, flags):
        out = os.path.join(self.folder, name)
        result = skipper_process.run(
            self.arguments.binary,
            ["plan", "--model", self.arguments.model, "--device", "cpu", "--out", out,
             *(() if "--memory" in flags else ("--memory", MEMORY)), *flags],
        )
        if result.returncode != 0:
            raise AssertionError(f"plan {flags}: status {result.returncode}\n{result.stderr}")
        return out

    def eval(self, flags, ranks=0, out="eval.json"):
        return skipper_process.run(
            self.arguments.binary,
            ["eval", "--model", self.arguments.model, "--data", self.data, "--device", "cpu",
             "--json", os.path.join(self.folder, out), *flags],
            ranks=ranks,
        )

    def perplexity(self, flags, ranks=0):
        result = self.eval(flags, ranks)
        if result.returncode != 0:
            raise AssertionError(f"eval {flags}: status {result.returncode}\n{result.stderr}")
        return read_json(os.path.join(self.folder, "eval.json"))["perplexity"]["text"]["perplexity"]


def with_formats(plan, format_of):
    """The plan in other formats, of which nothing is known but their names."""
    changed = copy.deepcopy(plan)
    for one in changed["copies"]:
        one["format"], one["hash"] = format_of(one), ""
    return changed


def mixed(one):
    return MIXED[(one["expert"] + one["layer"]) % len(MIXED)]


def check_equal_to_uniform(case, plan):
    """The same numbers to the last digit, whoever said the format."""
    failures = []
    for name in ("int4a-g32", "bf16"):
        path = write_json(os.path.join(case.folder, f"{name}.json"), with_formats(plan, lambda one, name=name: name))
        planned, uniform = case.perplexity(["--plan", path]), case.perplexity(["--experts", name])
        print(f"{name}: perplexity {planned} by a plan, {uniform} by --experts")
        if planned != uniform:
            failures.append(f"{name}: perplexity {planned} by a plan, {uniform} by --experts")
    return failures


def check_ranks(case, plan):
    """Mixed formats on two ranks that share no order with equal blocks: the perplexity of one rank."""
    single = case.perplexity(["--plan", write_json(os.path.join(case.folder, "mixed.json"), with_formats(plan, mixed))])
    spread = with_formats(read_json(case.plan("two.json", ["--ranks", "2"])), mixed)
    next_slot = {}
    for one in sorted(spread["copies"], key=lambda one: -one["expert"]):
        one["rank"] = one["expert"] % 2
        place = (one["layer"], one["rank"])
        one["slot"] = next_slot.get(place, 0)
        next_slot[place] = one["slot"] + 1
    path = write_json(os.path.join(case.folder, "spread.json"), spread)
    double = case.perplexity(["--plan", path], ranks=2)
    print(f"mixed formats: perplexity {single} on one rank, {double} on two")
    failures = [] if abs(double / single - 1) < 0.002 else [f"perplexity {single} on one rank, {double} on two"]
    return failures + check_audit(case, path)


def check_audit(case, path):
    """Replay decides by the owners that the plan has named, which equal blocks would not give."""
    alpha = [1 / NUM_LAYERS] * NUM_LAYERS
    hops = {"node": 0.01, "network": 0.01}
    point = {"version": 1, "alpha": {"text": alpha, "vision": alpha}, "tau": {"text": 0, "vision": 0},
             "tau_dst": {"text": hops, "vision": hops}}
    audit = os.path.join(case.folder, "audit.jsonl")
    case.perplexity(["--plan", path, "--operating_point", write_json(os.path.join(case.folder, "point.json"), point),
                     "--audit_file", audit, "--audit_rate", "1"], ranks=2)
    failures = []
    for rank in (0, 1):
        output, differences = replay_audit(case.arguments.binary, f"{audit}.rank{rank}")
        failures += differences
        if ", skipped 0 " in output:
            failures.append(f"the audit of a plan shows no skipping: {output}")
    with open(f"{audit}.rank0", encoding="utf-8") as file:
        header, decisions = json.loads(file.readline()), file.read()
    if header["placement"].pop("owners") != [[expert % 2 for expert in range(NUM_EXPERTS)]] * NUM_LAYERS:
        failures.append(f"the audit has other owners than the plan: {header}")
    header["placement"]["rule"] = "contiguous"
    with open(os.path.join(case.folder, "blocks.jsonl"), "w", encoding="utf-8") as file:
        file.write(json.dumps(header) + "\n" + decisions)
    blocks = skipper_process.run(case.arguments.binary, ["replay", "--audit", file.name])
    return failures + check_refusal("owners taken away", blocks, EXIT_ERROR, "blocks.jsonl: line ")


def check_quantized(case):
    """A quantised checkpoint is served by plans in its own formats, and refused by others in one line."""
    model = os.path.join(case.folder, "quantized")
    made = skipper_process.run(case.arguments.binary,
                               ["quantize", "--model", case.arguments.model, "--out", model, "--experts", "int4a-g32"])
    if made.returncode != 0:
        return [f"quantize: {made.stderr}"]
    quantized = copy.copy(case)
    quantized.arguments = argparse.Namespace(binary=case.arguments.binary, model=model)
    path = quantized.plan("quantized.json", ["--hashes", "true"])
    failures = check_answers(quantized, path)
    plan = read_json(path)
    if {one["format"] for one in plan["copies"]} != {"int4a-g32"}:
        failures.append("the plan of a quantised checkpoint has other formats than the checkpoint")
    unplanned, planned = quantized.perplexity([]), quantized.perplexity(["--plan", path])
    spread = quantized.perplexity(["--plan", quantized.plan("two_quantized.json", ["--ranks", "2", "--hashes", "true"])], ranks=2)
    print(f"quantised checkpoint: perplexity {unplanned}, by a plan {planned}, on two ranks {spread}")
    if planned != unplanned or abs(spread / unplanned - 1) > 0.002:
        failures.append(f"quantised checkpoint: perplexity {unplanned}, by a plan {planned}, on two ranks {spread}")
    other = with_formats(plan, lambda one: "int8-g64" if (one["layer"], one["expert"]) == (3, 7) else "int4a-g32")
    flags = ["--plan", write_json(os.path.join(case.folder, "other.json"), other)]
    expected = ("the plan wants expert 7 of MoE layer 3 in int8-g64, but the checkpoint holds it quantised to int4a-g32; "
                "make a plan for this checkpoint, or give the original")
    failures += check_refusal("formats of another plan", quantized.eval(flags, out="none.json"), EXIT_ERROR, expected)
    server = skipper_process.run(case.arguments.binary, ["serve", "--port", "0", "--model", model, *flags], ranks=2)
    failures += check_refusal("ranks of another plan", server, EXIT_ERROR, "made for 1 ranks but 2 were started")
    return failures + check_refusal("plan of the original", quantized.eval(["--plan", os.path.join(case.folder, "plan.json")]),
                                    EXIT_ERROR, "but the loaded model is ")


def check_answers(case, path):
    """A server answers by a plan with hashes."""
    flags = ["--model", case.arguments.model, "--device", "cpu", "--plan", path]
    name = os.path.basename(os.path.normpath(case.arguments.model))
    body = {"model": name, "messages": [{"role": "user", "content": "What is 2 + 2?"}], "max_completion_tokens": 4}
    with skipper_process.Server(case.arguments.binary, flags) as server:
        status, answer = skipper_process.post_json(server.url + "/v1/chat/completions", body)
    print(f"serve --plan: {status}")
    return [] if status == 200 and answer["usage"]["completion_tokens"] > 0 else [f"serve --plan: {status} {answer}"]


def check_planning_at_start(case):
    """`--memory` alone: the same perplexity as with the plan that `skipper plan` makes for the same settings."""
    config = write_json(os.path.join(case.folder, "config.json"), {"engine": {"max_logit_rows": 512}})
    memory = ["--memory", "220M,219M", "--config", config]
    out = os.path.join(case.folder, "budget.json")
    flags = ["plan", "--model", case.arguments.model, "--device", "cpu", "--ranks", "2", "--out", out, *memory]
    result = skipper_process.run(case.arguments.binary, flags)
    if result.returncode != 0:
        return [f"plan {memory}: {result.stderr}"]
    by_file = case.perplexity(["--plan", out, "--config", config], ranks=2)
    audit = os.path.join(case.folder, "memory.jsonl")
    at_start = case.eval([*memory, "--audit_file", audit, "--audit_rate", "1"], ranks=2)
    if at_start.returncode != 0:
        return [f"eval {memory}: {at_start.stderr}"]
    by_memory = read_json(os.path.join(case.folder, "eval.json"))["perplexity"]["text"]["perplexity"]
    print(f"--memory: perplexity {by_memory}, by a plan for the same memory {by_file}")
    failures = [] if by_memory == by_file else [f"--memory: perplexity {by_memory}, by a plan {by_file}"]
    if "profile=analytic" not in at_start.stderr:
        failures.append(f"--memory: nothing says what was planned: {at_start.stderr}")
    for rank in (0, 1):
        failures += replay_audit(case.arguments.binary, f"{audit}.rank{rank}")[1]
    return failures + check_memory_refusals(case)


def check_scoring_buffers(case):
    """Scoring wants more rows of logits than a server: as many as the budget has room for, with the same numbers."""
    tight = case.plan("tight.json", ["--memory", "208M"])
    plan = read_json(tight)
    plan["ranks"][0]["host"]["budget"] *= 10
    roomy = case.eval(["--plan", write_json(os.path.join(case.folder, "roomy.json"), plan)])
    expected = read_json(os.path.join(case.folder, "eval.json"))["perplexity"]["text"]["perplexity"]
    result = case.eval(["--plan", tight])
    found = re.search(r"tight.json has room for the logits of (\d+) tokens a step, not of 512: scoring takes more", result.stderr)
    perplexity = read_json(os.path.join(case.folder, "eval.json"))["perplexity"]["text"]["perplexity"]
    print(f"{found and found[0]}; perplexity {perplexity}, with room {expected}")
    failures = []
    if not found or not 128 <= int(found[1]) < 512 or perplexity != expected:
        failures.append(f"a tight plan: perplexity {perplexity}, with room {expected}; {result.stderr}")
    if "has room for the logits" in roomy.stderr:
        failures.append(f"a plan with room: {roomy.stderr}")
    config = write_json(os.path.join(case.folder, "steps.json"), {"engine": {"max_tokens_per_step": 8192}})
    large = case.eval(["--plan", tight, "--config", config], out="none.json")
    expected = "engine.max_tokens_per_step: 8192 tokens take step buffers of "
    return failures + check_refusal("long steps", large, EXIT_ERROR, expected)


def check_memory_refusals(case):
    cases = [
        ("short", ["--memory", "100M"], EXIT_ERROR, "short by"),
        ("too many", ["--memory", "1G,1G"], EXIT_USAGE, "2 sizes for 1 ranks"),
        ("no size", ["--memory", "1X"], EXIT_USAGE, "'1X' is no size"),
        ("two formats", ["--memory", "1G", "--experts", "bf16"], EXIT_USAGE, "exclude each other"),
        ("no memory", ["--max_loss", "0.1"], EXIT_USAGE, "--max_loss needs --memory"),
        ("no profile", ["--memory", "1G", "--profile", "/nonexistent.json"], EXIT_ERROR, "/nonexistent.json"),
    ]
    failures = []
    for name, flags, status, expected in cases:
        failures += check_refusal(name, case.eval(flags, out="none.json"), status, expected)
    line = error_line(case.eval(["--memory", "100M"], ranks=2))
    return failures if "short by" in line else failures + [f"short on two ranks: {line}"]


def check_refusals(case, plan):
    changes = {
        "fingerprint": lambda p: p.update(model_fingerprint="00000000000000ff"),
        "ranks": lambda p: (p.update(world_size=2), p["ranks"].append(p["ranks"][0])),
        "hash": lambda p: p["copies"][5].update(hash="0123456789abcdef"),
        "disk": lambda p: (p["copies"][5].update(tier="disk"), p["ranks"][0].update(disk=p["ranks"][0]["host"])),
        "KV cache": lambda p: p["origin"].update(kv_tokens_per_rank=64),
        "format": lambda p: p["copies"][5].update(format="int5"),
    }
    expected = {
        "fingerprint": "made for model 00000000000000ff but the loaded model is ",
        "ranks": "made for 2 ranks but 1 were started",
        "hash": "has the hash ",
        "disk": "rests on the disk of rank 0",
        "KV cache": "is larger than that of 64 tokens",
        "format": "int5",
    }
    failures = []
    for name, change in changes.items():
        changed = copy.deepcopy(plan)
        change(changed)
        path = write_json(os.path.join(case.folder, "wrong.json"), changed)
        failures += check_refusal(name, case.eval(["--plan", path], out="none.json"), EXIT_ERROR, expected[name])
    path = write_json(os.path.join(case.folder, "wrong.json"), plan)
    failures += check_refusal("two formats", case.eval(["--plan", path, "--experts", "bf16"]), EXIT_USAGE, "exclude each other")
    failures += check_refusal("no plan", case.eval(["--plan", path + "x"]), EXIT_ERROR, "wrong.jsonx")
    line = error_line(case.eval(["--plan", path], ranks=2))
    if "made for 1 ranks but 2 were started" not in line:
        failures.append(f"a plan for one rank on two: {line}")
    return failures


def check(arguments, folder):
    case = Case(arguments, folder)
    path = case.plan("plan.json", ["--hashes", "true"])
    plan = read_json(path)
    failures = [] if all(len(one["hash"]) == 16 for one in plan["copies"]) else ["--hashes left some out"]
    failures += check_equal_to_uniform(case, plan) + check_ranks(case, plan)
    failures += check_planning_at_start(case) + check_scoring_buffers(case) + check_quantized(case)
    return failures + check_answers(case, path) + check_refusals(case, plan)


if __name__ == "__main__":
    run_checks(check)
