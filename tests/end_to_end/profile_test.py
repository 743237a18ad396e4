"""`skipper profile` and `skipper plan --verify` on a few questions of the demo model, and what both refuse."""

import os
import re
import sys

import skipper_process
from command_check import EXIT_ERROR, EXIT_USAGE, check_refusal, read_json, run_checks, write_json

NUM_LAYERS, NUM_EXPERTS, EXPERTS_PER_TOKEN = 6, 32, 4
FORMATS = ("int3a-g32", "int8-g64")
NUM_QUESTIONS = 10  # of which every fifth is held out
NUM_PLANS = 3
# Room for all experts in the smaller format and some unrounded, not for all in the larger one.
MEMORY = "207M"


def few_questions(model, folder):
    data = os.path.join(folder, "questions")
    os.mkdir(data)
    with open(os.path.join(model, "calibration", "chat.jsonl"), encoding="utf-8") as file:
        lines = [next(file) for _ in range(NUM_QUESTIONS)]
    with open(os.path.join(data, "chat.jsonl"), "w", encoding="utf-8") as file:
        file.writelines(lines)
    return data


class Commands:
    def __init__(self, arguments, folder):
        self._arguments = arguments
        self.data = few_questions(arguments.model, folder)
        self.profile = os.path.join(folder, "profile.json")
        self.plan = os.path.join(folder, "plan.json")

    def run_profile(self, *flags, ranks=0):
        return self._run("profile", "--data", self.data, "--formats", ",".join(FORMATS), *flags, ranks=ranks)

    def run_verified_plan(self, *flags, ranks=0):
        return self._run("plan", "--profile", self.profile, "--memory", MEMORY, *flags, ranks=ranks)

    def _run(self, command, *flags, ranks):
        arguments = [command, "--model", self._arguments.model, *flags]
        return skipper_process.run(self._arguments.binary, arguments, ranks=ranks, timeout=300)


def check_profile(commands):
    result = commands.run_profile("--plans", str(NUM_PLANS), "--out", commands.profile)
    if result.returncode != 0:
        sys.exit(f"profile ended with status {result.returncode}:\n{result.stderr}")
    profile = read_json(commands.profile)
    print(result.stdout)
    failures = []
    if not 0 < profile["uniform_loss"]["int8-g64"] < profile["uniform_loss"]["int3a-g32"]:
        failures.append(f"losses of uniform formats are {profile['uniform_loss']}")
    if profile["additive_fit"]["num_plans"] != NUM_PLANS or f"sums against {NUM_PLANS} random plans: R²" not in result.stdout:
        failures.append(f"fit to random plans: {profile['additive_fit']}")
    if profile["version"] != 2 or profile["operating_point"] != "":
        failures.append(f"version {profile['version']}, measured at level '{profile.get('operating_point')}' instead of none")
    if len(profile["layers"]) != NUM_LAYERS or any(len(layer["error"][name]) != NUM_EXPERTS
                                                   for layer in profile["layers"] for name in FORMATS):
        failures.append("errors are not those of each expert in each format")
    used = profile["layers"][0]["use"]["text"]["prompt"]
    if not 0 < max(used) <= 1 or abs(sum(used) - EXPERTS_PER_TOKEN) > 1e-6:
        failures.append(f"prompt tokens run on {sum(used)} experts of the first layer, expected {EXPERTS_PER_TOKEN}")
    return failures


def check_verified_plan(commands):
    result = commands.run_verified_plan("--verify", commands.data, "--out", commands.plan)
    if result.returncode != 0:
        sys.exit(f"plan --verify ended with status {result.returncode}:\n{result.stderr}")
    print(result.stdout)
    found = re.findall(r"^(.+?) +[\d.]+ bits .*?measured ([\d.]+) ±", result.stdout, re.MULTILINE)
    measured = {name.strip(): float(loss) for name, loss in found}
    taken = re.search(r"^taken: (.+)$", result.stdout, re.MULTILINE)
    failures = []
    if not {"the plan", "all int3a-g32"} <= set(measured):
        failures.append(f"measured were {sorted(measured)}")
    elif not taken or abs(read_json(commands.plan)["predicted"]["loss"] - measured[taken.group(1)]) > 1e-6:
        failures.append(f"the plan that was written loses {read_json(commands.plan)['predicted']['loss']} of {measured}")
    elif measured[taken.group(1)] > measured["all int3a-g32"]:
        failures.append(f"taken was {taken.group(1)}, which loses more than one format: {measured}")
    if read_json(commands.plan)["origin"].get("operating_point") != "":
        failures.append("the plan does not say that its profile was measured without skipping")
    return failures


def check_refusals(commands, folder):
    out = os.path.join(folder, "none.json")
    other = read_json(commands.profile)
    other["model_fingerprint"] = "0000000000000000"
    other_profile = write_json(os.path.join(folder, "other.json"), other)
    skipping_profile = write_json(os.path.join(folder, "skipping.json"),
                                  {**read_json(commands.profile), "operating_point": "0123456789abcdef"})
    gone = os.path.join(folder, "gone")
    cases = [
        ("unknown format", commands.run_profile("--formats", "int5-g32", "--out", out), EXIT_USAGE, "int5-g32"),
        ("format twice", commands.run_profile("--formats", "int8-g64,int8-g64", "--out", out), EXIT_USAGE, "stands twice"),
        ("not rounded", commands.run_profile("--formats", "bf16", "--out", out), EXIT_USAGE, "is not rounded"),
        ("no folder", commands.run_profile("--out", os.path.join(gone, "p.json")), EXIT_ERROR, "gone"),
        ("no data", commands.run_profile("--data", gone, "--out", out), EXIT_ERROR, "gone"),
        ("no memory for predictions", commands.run_profile("--reference_memory", "0", "--out", out), EXIT_ERROR,
         "--reference_memory"),
        ("verify without data", commands.run_verified_plan("--verify", gone, "--out", out), EXIT_ERROR, "gone"),
        ("profile of another model",
         commands.run_verified_plan("--profile", other_profile, "--verify", commands.data, "--out", out), EXIT_ERROR,
         "measured on model 0000000000000000"),
        ("profile of a level of skipping",
         commands.run_verified_plan("--profile", skipping_profile, "--verify", commands.data, "--out", out), EXIT_ERROR,
         "measured at level 0123456789abcdef"),
        ("profile on two ranks", commands.run_profile("--out", out, ranks=2), EXIT_ERROR,
         "measures on one rank, but 2 were started"),
        ("verify on two ranks", commands.run_verified_plan("--verify", commands.data, "--out", out, ranks=2), EXIT_ERROR,
         "measures on one rank, but 2 were started"),
    ]
    failures = []
    for name, result, status, expected in cases:
        failures += check_refusal(name, result, status, expected, out)
    return failures


def check(arguments, folder):
    commands = Commands(arguments, folder)
    return check_profile(commands) + check_verified_plan(commands) + check_refusals(commands, folder)


if __name__ == "__main__":
    run_checks(check)
