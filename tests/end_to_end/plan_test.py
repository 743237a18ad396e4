"""`skipper plan`: the demo model's plans within budgets that are looked up in the plan, a 235B model of which only config and
index are there, and everything that is refused."""

import json
import os
import re

import skipper_process
from command_check import EXIT_ERROR, EXIT_USAGE, check_refusal, run_checks

# Qwen3-235B-A22B: config.json and an index without any tensor file.
LARGE_MODEL = {
    "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "dtype": "bfloat16", "attention_bias": False,
    "decoder_sparse_step": 1, "bos_token_id": 151643, "eos_token_id": 151645, "head_dim": 128, "hidden_act": "silu",
    "hidden_size": 4096, "intermediate_size": 12288, "max_position_embeddings": 40960, "mlp_only_layers": [],
    "moe_intermediate_size": 1536, "norm_topk_prob": True, "num_attention_heads": 64, "num_experts": 128,
    "num_experts_per_tok": 8, "num_hidden_layers": 94, "num_key_value_heads": 4, "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0, "rope_scaling": None, "sliding_window": None, "use_sliding_window": False,
    "tie_word_embeddings": False, "vocab_size": 151936,
}


class Planner:
    def __init__(self, arguments, folder):
        self.binary = arguments.binary
        self.model = arguments.model
        self.out = os.path.join(folder, "plan.json")

    def run(self, *flags, model=None):
        if os.path.exists(self.out):
            os.remove(self.out)
        command = ["plan", "--model", model or self.model, "--out", self.out, "--device", "cpu", *flags]
        return skipper_process.run(self.binary, command, timeout=120)

    def plan(self, *flags, model=None):
        result = self.run(*flags, model=model)
        if result.returncode != 0:
            raise RuntimeError(f"plan {flags}: status {result.returncode}: {result.stderr}")
        with open(self.out, encoding="utf-8") as file:
            return json.load(file), result.stdout


def used_bytes(memory):
    return sum(memory["experts"].values()) + sum(memory[kind] for kind in ("runtime", "dense_weights", "kv_cache", "buffers"))


def check_plan(name, plan, num_experts):
    """Every expert once, every budget kept."""
    failures = []
    experts = {(copy["layer"], copy["expert"]) for copy in plan["copies"]}
    if len(plan["copies"]) != num_experts or len(experts) != num_experts:
        failures.append(f"{name}: {len(experts)} experts in {len(plan['copies'])} copies, expected {num_experts}")
    for rank, tiers in enumerate(plan["ranks"]):
        for tier, memory in tiers.items():
            if used_bytes(memory) > memory["budget"]:
                failures.append(f"{name}: rank {rank} uses {used_bytes(memory)} of {memory['budget']} bytes of {tier}")
    return failures


def check_demo(planner):
    failures = []
    losses = []
    for memory in ("206M", "215M", "300M"):
        plan, report = planner.plan("--memory", memory)
        failures += check_plan(memory, plan, 6 * 32)
        losses.append(plan["predicted"]["loss"])
        if not report.rstrip().endswith("fits") or "relative units" not in report:
            failures.append(f"{memory}: the report says neither that it fits nor what the loss is: {report}")
    if not losses[0] >= losses[1] >= losses[2] == 0.0:
        failures.append(f"losses do not fall with memory: {losses}")
    plan, _ = planner.plan("--ranks", "3", "--memory", "210M,207M,215M")
    failures += check_plan("3 ranks", plan, 6 * 32)
    if len({copy["rank"] for copy in plan["copies"]}) != 3:
        failures.append("3 ranks: some hold no expert")
    return failures + check_owners(planner, plan)


def check_owners(planner, plan):
    """A plan for other memory whose ranks keep their experts."""
    owners = os.path.join(os.path.dirname(planner.out), "owners.json")
    with open(owners, "w", encoding="utf-8") as file:
        json.dump(plan, file)
    other, _ = planner.plan("--memory", "240M", "--owners_of", owners)
    places = [[(copy["layer"], copy["expert"], copy["rank"], copy["slot"]) for copy in one["copies"]] for one in (plan, other)]
    failures = check_plan("kept owners", other, 6 * 32)
    if places[0] != places[1]:
        failures.append("kept owners: some experts moved")
    if other["predicted"]["loss"] >= plan["predicted"]["loss"]:
        failures.append("kept owners: more memory loses as much")
    refused = planner.run("--memory", "240M", "--ranks", "2", "--owners_of", owners)
    return failures + check_refusal("owners of others", refused, EXIT_ERROR, "made for 3 ranks", planner.out)


def check_large_model(planner, folder):
    """Nothing but two small files is there, so nothing else can be read."""
    model = os.path.join(folder, "large")
    os.mkdir(model)
    with open(os.path.join(model, "config.json"), "w", encoding="utf-8") as file:
        json.dump(LARGE_MODEL, file)
    with open(os.path.join(model, "model.safetensors.index.json"), "w", encoding="utf-8") as file:
        json.dump({"metadata": {"total_size": 470e9}, "weight_map": {}}, file)
    plan, report = planner.plan("--ranks", "4", "--memory", "64G", "--device", "cuda", model=model)
    failures = check_plan("large", plan, 94 * 128)
    if plan["certificate"]["gap"] > 0.001:
        failures.append(f"large: a gap of {plan['certificate']['gap']}")
    print(report)
    refused = planner.run("--ranks", "2", "--memory", "40G", "--device", "cuda", model=model)
    failures += check_refusal("short", refused, EXIT_ERROR, "do one of", planner.out)
    advised = re.search(r"use (\d+) ranks", refused.stderr)
    if not advised:
        return failures + [f"short: no number of ranks: {refused.stderr}"]
    plan, _ = planner.plan("--ranks", advised[1], "--memory", "40G", "--device", "cuda", model=model)
    return failures + check_plan("advised ranks", plan, 94 * 128)


def check_refusals(planner, folder):
    profile = os.path.join(folder, "profile.json")
    with open(profile, "w", encoding="utf-8") as file:
        json.dump({"version": 1, "model_fingerprint": "0000000000000000"}, file)
    cases = [
        ("no memory", (), EXIT_USAGE, "--memory is missing"),
        ("no size", ("--memory", "2GB"), EXIT_USAGE, "'2GB' is no size"),
        ("wrong count", ("--memory", "1G,2G", "--ranks", "3"), EXIT_USAGE, "2 sizes for 3 ranks"),
        ("target", ("--memory", "1G", "--target", "fun"), EXIT_USAGE, "'fun' is unknown"),
        ("both", ("--memory", "1G", "--target", "quality", "--max_loss", "1"), EXIT_USAGE, "exclude each other"),
        ("no GPU", ("--memory", "1G", "--host_memory", "1G"), EXIT_USAGE, "no memory but --memory"),
        ("no ranks", ("--memory", "1G", "--ranks", "0"), EXIT_USAGE, "--ranks: 0"),
        ("no disk", ("--memory", "1G", "--disk", "/nonexistent"), EXIT_ERROR, "/nonexistent"),
        ("profile", ("--memory", "1G", "--profile", profile), EXIT_ERROR, "measured on model 0000000000000000"),
        ("short", ("--memory", "100M"), EXIT_ERROR, "short by"),
        ("too good", ("--memory", "210M", "--max_loss", "1e-9"), EXIT_ERROR, "out of reach"),
    ]
    failures = []
    for name, flags, status, expected in cases:
        failures += check_refusal(name, planner.run(*flags), status, expected, planner.out)
    return failures


def check(arguments, folder):
    planner = Planner(arguments, folder)
    return check_demo(planner) + check_large_model(planner, folder) + check_refusals(planner, folder)


if __name__ == "__main__":
    run_checks(check)
